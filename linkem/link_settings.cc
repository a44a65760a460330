#include "linkem/link_settings.h"

#include <charconv>
#include <cmath>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"

namespace braid::linkem {
namespace {

struct Unit {
  const char* name;  // lower case
  double factor;
};

constexpr Unit kRateUnits[] = {{"bit", 1}, {"kbit", 1e3}, {"mbit", 1e6}, {"gbit", 1e9}};
constexpr Unit kTimeUnits[] = {{"ns", 1}, {"us", 1e3}, {"ms", 1e6}, {"s", 1e9}};
constexpr Unit kSizeUnits[] = {{"b", 1},
                               {"kb", 1e3},
                               {"mb", 1e6},
                               {"gb", 1e9},
                               {"kib", 1024},
                               {"mib", 1024 * 1024},
                               {"gib", 1024 * 1024 * 1024}};
constexpr Unit kShareUnits[] = {{"%", 0.01}};
constexpr Unit kNumber[] = {{"", 1}};

constexpr double kMaxRateBits = 1e12;
constexpr double kMaxQueueBytes = 1e12;

// A number of 0 or more with one of these units; a zero needs none.
std::optional<double> Parse(std::string_view text, std::span<const Unit> units, double most) {
  double number = 0;
  const auto [end, error] =
      std::from_chars(text.data(), text.data() + text.size(), number, std::chars_format::fixed);
  if (error != std::errc() || !std::isfinite(number) || std::signbit(number)) return {};
  const std::string unit =
      absl::AsciiStrToLower({end, static_cast<size_t>(text.data() + text.size() - end)});
  if (unit.empty() && number == 0) return 0;
  for (const Unit& known : units) {
    if (unit != known.name) continue;
    const double value = number * known.factor;
    if (value > most) return {};
    return value;
  }
  return {};
}

// "1%,8": two values with a comma between them; "0" stands for none at all.
bool ParsePair(std::string_view text, std::span<const Unit> first, double first_most,
               std::span<const Unit> second, double second_most, double& a, double& b) {
  const size_t comma = text.find(',');
  const std::optional<double> left = Parse(text.substr(0, comma), first, first_most);
  if (!left) return false;
  if (comma == std::string_view::npos) return *left == 0 && (a = 0, true);
  const std::optional<double> right = Parse(text.substr(comma + 1), second, second_most);
  if (!right) return false;
  a = *left;
  b = *right;
  return true;
}

absl::Status Bad(std::string_view key, std::string_view value, const char* wanted) {
  return absl::InvalidArgumentError(
      absl::StrFormat("%s: \"%s\" is not %s", std::string(key), std::string(value), wanted));
}

absl::Status SetRate(LinkSettings& settings, std::string_view key, std::string_view value) {
  if (value == "unlimited") {
    settings.rate_bits_per_s = 0;
    return absl::OkStatus();
  }
  const std::optional<double> rate = Parse(value, kRateUnits, kMaxRateBits);
  if (!rate || (*rate > 0 && *rate < 1)) {
    return Bad(key, value, "a rate, such as 50mbit, 800kbit, 1.5gbit or unlimited");
  }
  settings.rate_bits_per_s = static_cast<uint64_t>(std::llround(*rate));
  return absl::OkStatus();
}

absl::Status SetTime(DurationNs& field, std::string_view key, std::string_view value) {
  const std::optional<double> time = Parse(value, kTimeUnits, static_cast<double>(kMaxDelayNs));
  if (!time) return Bad(key, value, "a time of at most 60s, such as 10ms, 500us or 1s");
  field = static_cast<DurationNs>(std::llround(*time));
  return absl::OkStatus();
}

absl::Status SetLoss(LinkSettings& settings, std::string_view key, std::string_view value) {
  const std::optional<double> share = Parse(value, kShareUnits, 1);
  if (!share) return Bad(key, value, "a share from 0% to 100%, such as 0.5%");
  settings.loss = *share;
  return absl::OkStatus();
}

absl::Status SetBurstLoss(LinkSettings& settings, std::string_view key, std::string_view value) {
  double share = 0;
  double frames = 1;
  if (!ParsePair(value, kShareUnits, 1, kNumber, kMaxBurstFrames, share, frames) || frames < 1) {
    return Bad(key, value, "a share and a mean length of at least 1 frame, such as 1%,8");
  }
  // Between two bursts at least one frame gets through.
  if (share > frames / (frames + 1)) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "%s: bursts of %g frames on average can lose at most %.1f%% of the frames; take longer "
        "ones, or loss",
        std::string(key), frames, 100 * frames / (frames + 1)));
  }
  settings.burst_loss = share;
  settings.burst_frames = frames;
  return absl::OkStatus();
}

absl::Status SetQueue(LinkSettings& settings, std::string_view key, std::string_view value) {
  const std::optional<double> bytes = Parse(value, kSizeUnits, kMaxQueueBytes);
  if (!bytes) return Bad(key, value, "a size, such as 256KB, 64KiB, 1MB or 9000B");
  settings.queue_bytes = static_cast<uint64_t>(std::llround(*bytes));
  return absl::OkStatus();
}

absl::Status SetReorder(LinkSettings& settings, std::string_view key, std::string_view value) {
  double share = 0;
  double time = 0;
  if (!ParsePair(value, kShareUnits, 1, kTimeUnits, static_cast<double>(kMaxDelayNs), share,
                 time)) {
    return Bad(key, value, "a share and a time to hold back for, such as 1%,5ms");
  }
  settings.reorder = share;
  settings.reorder_ns = static_cast<DurationNs>(std::llround(time));
  return absl::OkStatus();
}

std::string DescribeTime(DurationNs time_ns) {
  if (time_ns >= kSecondNs) return absl::StrFormat("%gs", static_cast<double>(time_ns) / 1e9);
  if (time_ns >= kMillisecondNs) return absl::StrFormat("%gms", static_cast<double>(time_ns) / 1e6);
  return absl::StrFormat("%gus", static_cast<double>(time_ns) / 1e3);
}

std::string DescribeRate(uint64_t bits_per_s) {
  const auto rate = static_cast<double>(bits_per_s);
  if (bits_per_s == 0) return "unlimited";
  if (rate >= 1e9) return absl::StrFormat("%ggbit", rate / 1e9);
  if (rate >= 1e6) return absl::StrFormat("%gmbit", rate / 1e6);
  if (rate >= 1e3) return absl::StrFormat("%gkbit", rate / 1e3);
  return absl::StrFormat("%gbit", rate);
}

std::string DescribeSize(uint64_t bytes) {
  const auto size = static_cast<double>(bytes);
  if (size >= 1e6) return absl::StrFormat("%gMB", size / 1e6);
  if (size >= 1e3) return absl::StrFormat("%gKB", size / 1e3);
  return absl::StrFormat("%gB", size);
}

}  // namespace

absl::Status SetLink(LinkSettings& settings, std::string_view key, std::string_view value) {
  if (key == "rate") return SetRate(settings, key, value);
  if (key == "delay") return SetTime(settings.delay_ns, key, value);
  if (key == "jitter") return SetTime(settings.jitter_ns, key, value);
  if (key == "loss") return SetLoss(settings, key, value);
  if (key == "burst-loss") return SetBurstLoss(settings, key, value);
  if (key == "queue") return SetQueue(settings, key, value);
  if (key == "reorder") return SetReorder(settings, key, value);
  return absl::InvalidArgumentError(
      absl::StrFormat("\"%s\" is not one of rate, delay, jitter, loss, burst-loss, queue, reorder",
                      std::string(key)));
}

absl::Status SetLink(LinkSettings& settings, std::string_view text) {
  const std::vector<std::string> words =
      absl::StrSplit(std::string(text), absl::ByAnyChar(" \t"), absl::SkipEmpty());
  if (words.empty()) {
    return absl::InvalidArgumentError("nothing to set; say for instance rate 20mbit loss 2%");
  }
  LinkSettings changed = settings;
  for (size_t i = 0; i < words.size(); i += 2) {
    const std::string value = i + 1 < words.size() ? words[i + 1] : "";
    const absl::Status status = SetLink(changed, words[i], value);
    if (!status.ok()) return status;
  }
  settings = changed;
  return absl::OkStatus();
}

std::string DescribeLink(const LinkSettings& settings) {
  std::string text = "rate " + DescribeRate(settings.rate_bits_per_s);
  if (settings.delay_ns != 0) text += " delay " + DescribeTime(settings.delay_ns);
  if (settings.jitter_ns != 0) text += " jitter " + DescribeTime(settings.jitter_ns);
  if (settings.loss != 0) text += absl::StrFormat(" loss %g%%", settings.loss * 100);
  if (settings.burst_loss != 0) {
    text +=
        absl::StrFormat(" burst-loss %g%%,%g", settings.burst_loss * 100, settings.burst_frames);
  }
  if (settings.rate_bits_per_s != 0) text += " queue " + DescribeSize(settings.queue_bytes);
  if (settings.reorder != 0) {
    text += absl::StrFormat(" reorder %g%%,%s", settings.reorder * 100,
                            DescribeTime(settings.reorder_ns));
  }
  if (settings.down) text += " down";
  return text;
}

}  // namespace braid::linkem
