#include "slowpath/measure_protocol.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "slowpath/control_protocol.h"

namespace braid {
namespace {

using Json = nlohmann::ordered_json;

constexpr uint32_t kDatagramMagic = 0xB7A1BE4C;
constexpr size_t kMaxTextBytes = 256;
constexpr std::array<std::string_view, 3> kLoadKindNames = {"idle", "tcp", "udp"};

// Reads the members of one object, and remembers the first that is not as it must be.
class Reader {
 public:
  explicit Reader(const Json& object) : object_(object) {}

  template <typename T>
  void Integer(const char* name, uint64_t min, uint64_t max, T& to) {
    const Json& value = Find(name);
    const bool fits =
        value.is_number_unsigned() && value.get<uint64_t>() >= min && value.get<uint64_t>() <= max;
    if (!fits) return Wrong(name, absl::StrCat("must be a whole number from ", min, " to ", max));
    to = static_cast<T>(value.get<uint64_t>());
  }

  void Number(const char* name, double min, double max, double& to) {
    const Json& value = Find(name);
    const double number = value.is_number() ? value.get<double>() : NAN;
    if (!(number >= min && number <= max)) {
      return Wrong(name, absl::StrCat("must be a number from ", min, " to ", max));
    }
    to = number;
  }

  void Boolean(const char* name, bool& to) {
    const Json& value = Find(name);
    if (!value.is_boolean()) return Wrong(name, "must be true or false");
    to = value.get<bool>();
  }

  void Text(const char* name, std::string& to) {
    const Json& value = Find(name);
    if (!value.is_string() || value.get_ref<const std::string&>().size() > kMaxTextBytes) {
      return Wrong(name, "must be a short text");
    }
    to = value.get<std::string>();
  }

  void Wrong(const char* name, const std::string& what) {
    if (status_.ok()) status_ = absl::InvalidArgumentError(absl::StrCat("\"", name, "\" ", what));
  }

  template <typename T>
  absl::StatusOr<MeasureLine> Finish(T line) {
    if (!status_.ok()) return status_;
    return MeasureLine(std::move(line));
  }

 private:
  const Json& Find(const char* name) const {
    static const Json kNull;
    const auto found = object_.find(name);
    return found == object_.end() ? kNull : *found;
  }

  const Json& object_;
  absl::Status status_;
};

absl::StatusOr<MeasureLine> ReadRequest(Reader reader) {
  MeasureRequest request;
  MeasurePlan& plan = request.plan;
  std::string load;
  reader.Text("load", load);
  const auto kind = std::find(kLoadKindNames.begin(), kLoadKindNames.end(), load);
  if (kind == kLoadKindNames.end()) {
    reader.Wrong("load", "must be \"idle\", \"tcp\" or \"udp\"");
  } else {
    plan.load = static_cast<LoadKind>(kind - kLoadKindNames.begin());
  }
  reader.Boolean("up", plan.up);
  reader.Boolean("down", plan.down);
  reader.Number("seconds", kMinMeasureSeconds, kMaxMeasureSeconds, plan.seconds);
  reader.Integer("flows", 1, kMaxMeasureFlows, plan.flows);
  reader.Integer("datagram_bytes", kMeasureDatagramBytes, kMaxMeasureDatagramBytes,
                 plan.datagram_bytes);
  reader.Number("rate_mbps", 0, kMaxMeasureRateMbps, plan.rate_mbps);
  reader.Integer("udp_port", 1, UINT16_MAX, request.udp_port);
  if (plan.load != LoadKind::kIdle && !plan.up && !plan.down) {
    reader.Wrong("up", "or \"down\" must be true where there is load");
  }
  return reader.Finish(request);
}

absl::StatusOr<MeasureLine> ReadAccepted(Reader reader) {
  MeasureAccepted accepted;
  reader.Text("token", accepted.token);
  reader.Integer("udp_port", 1, UINT16_MAX, accepted.udp_port);
  reader.Text("public_key", accepted.public_key);
  return reader.Finish(std::move(accepted));
}

absl::StatusOr<MeasureLine> ReadRefused(Reader reader) {
  MeasureRefused refused;
  reader.Text("code", refused.code);
  reader.Text("message", refused.message);
  return reader.Finish(std::move(refused));
}

absl::StatusOr<MeasureLine> ReadStream(Reader reader) {
  MeasureStream stream;
  reader.Text("token", stream.token);
  reader.Integer("index", 0, 2 * kMaxMeasureFlows - 1, stream.index);
  return reader.Finish(std::move(stream));
}

absl::StatusOr<MeasureLine> ReadSent(Reader reader) {
  MeasureSent sent;
  reader.Integer("datagrams", 0, UINT64_MAX, sent.datagrams);
  return reader.Finish(sent);
}

constexpr std::pair<const char*, uint64_t EndReport::*> kReportFields[] = {
    {"elapsed_ns", &EndReport::elapsed_ns},
    {"tcp_rx_bytes", &EndReport::tcp_rx_bytes},
    {"tcp_rx_ns", &EndReport::tcp_rx_ns},
    {"datagrams_sent", &EndReport::datagrams_sent},
    {"datagrams_received", &EndReport::datagrams_received},
    {"datagrams_lost", &EndReport::datagrams_lost},
    {"datagrams_reordered", &EndReport::datagrams_reordered},
    {"datagrams_doubled", &EndReport::datagrams_doubled},
    {"datagrams_rx_ns", &EndReport::datagrams_rx_ns},
};

absl::StatusOr<MeasureLine> ReadReport(Reader reader, bool is_last) {
  EndReport report;
  for (const auto& [name, field] : kReportFields) {
    reader.Integer(name, 0, UINT64_MAX, report.*field);
  }
  report.is_last = is_last;
  return reader.Finish(report);
}

Json Describe(const MeasureRequest& request) {
  const MeasurePlan& plan = request.plan;
  return {{"type", "request"},
          {"load", LoadKindName(plan.load)},
          {"up", plan.up},
          {"down", plan.down},
          {"seconds", plan.seconds},
          {"flows", plan.flows},
          {"datagram_bytes", plan.datagram_bytes},
          {"rate_mbps", plan.rate_mbps},
          {"udp_port", request.udp_port}};
}

Json Describe(const MeasureAccepted& accepted) {
  return {{"type", "accepted"},
          {"token", accepted.token},
          {"udp_port", accepted.udp_port},
          {"public_key", accepted.public_key}};
}

Json Describe(const MeasureRefused& refused) {
  return {{"type", "refused"}, {"code", refused.code}, {"message", refused.message}};
}

Json Describe(const MeasureStream& stream) {
  return {{"type", "stream"}, {"token", stream.token}, {"index", stream.index}};
}

Json Describe(const MeasureGo&) { return {{"type", "go"}}; }

Json Describe(const MeasureSent& sent) { return {{"type", "sent"}, {"datagrams", sent.datagrams}}; }

Json Describe(const EndReport& report) {
  Json json = {{"type", report.is_last ? "result" : "report"}};
  for (const auto& [name, field] : kReportFields) json[name] = report.*field;
  return json;
}

}  // namespace

std::string_view LoadKindName(LoadKind kind) { return kLoadKindNames[static_cast<size_t>(kind)]; }

absl::StatusOr<MeasureLine> ParseMeasureLine(std::string_view line) {
  if (line.size() > kMaxMeasureLineBytes) {
    return absl::InvalidArgumentError("the line is too long");
  }
  const Json json = Json::parse(line, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) return absl::InvalidArgumentError("the line is no JSON object");
  const auto version = json.find("v");
  if (version == json.end() || *version != kMeasureVersion) {
    return absl::InvalidArgumentError(
        absl::StrCat("this end speaks version ", kMeasureVersion, " of the measuring protocol"));
  }
  const auto type = json.find("type");
  const std::string name =
      type != json.end() && type->is_string() ? type->get<std::string>() : std::string();
  Reader reader(json);
  if (name == "request") return ReadRequest(reader);
  if (name == "accepted") return ReadAccepted(reader);
  if (name == "refused") return ReadRefused(reader);
  if (name == "stream") return ReadStream(reader);
  if (name == "go") return MeasureLine(MeasureGo());
  if (name == "sent") return ReadSent(reader);
  if (name == "report" || name == "result") return ReadReport(reader, name == "result");
  return absl::InvalidArgumentError("the line's \"type\" is not known");
}

std::string RenderMeasureLine(const MeasureLine& line) {
  Json json = std::visit([](const auto& each) { return Describe(each); }, line);
  json["v"] = kMeasureVersion;
  return ToJsonText(json) + '\n';
}

void WriteMeasureDatagram(const MeasureDatagram& datagram, uint8_t* to) {
  StoreBe32(to, kDatagramMagic);
  StoreBe32(to + 4, static_cast<uint32_t>(datagram.kind));
  StoreBe64(to + 8, datagram.sequence);
  StoreBe64(to + 16, datagram.sent_ns);
}

std::optional<MeasureDatagram> ReadMeasureDatagram(Bytes from) {
  if (from.size() < kMeasureDatagramBytes || LoadBe32(from.data()) != kDatagramMagic) {
    return std::nullopt;
  }
  const uint32_t kind = LoadBe32(from.data() + 4);
  if (kind < 1 || kind > 3) return std::nullopt;
  return MeasureDatagram{static_cast<MeasureDatagram::Kind>(kind), LoadBe64(from.data() + 8),
                         LoadBe64(from.data() + 16)};
}

}  // namespace braid
