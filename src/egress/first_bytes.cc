#include "egress/first_bytes.h"

#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

#include "absl/strings/ascii.h"

namespace braid {
namespace {

// --- Names ---

constexpr size_t kMaxFirstHostBytes = 253;
constexpr size_t kMaxFirstHostLabelBytes = 63;

bool IsFirstHostLabel(std::string_view label) {
  return !label.empty() && label.size() <= kMaxFirstHostLabelBytes && label.front() != '-' &&
         label.back() != '-' && std::all_of(label.begin(), label.end(), [](unsigned char c) {
           return absl::ascii_isalnum(c) || c == '-' || c == '_';
         });
}

bool IsFirstHostNumber(std::string_view text) {
  return std::all_of(text.begin(), text.end(), absl::ascii_isdigit);
}

// What is found where a host stands. One whose last label is a number is an IPv4 address.
FirstBytes ReadFirstHost(std::string_view host) {
  const FirstBytes none = {FirstBytesVerdict::kNone, {}};
  if (host.ends_with('.')) host.remove_suffix(1);
  if (host.size() > kMaxFirstHostBytes) return none;
  std::string_view label;
  for (size_t at = 0; at <= host.size(); at += label.size() + 1) {
    label = host.substr(at, host.find('.', at) - at);
    if (!IsFirstHostLabel(label)) return none;
  }
  if (IsFirstHostNumber(label)) return none;
  FirstBytes found = {FirstBytesVerdict::kFound, std::string(host)};
  absl::AsciiStrToLower(&found.name);
  return found;
}

// The same with a port behind it, or without. IPv6 addresses are in brackets, which no name has.
FirstBytes ReadFirstAuthority(std::string_view authority) {
  const size_t colon = authority.find(':');
  if (colon == std::string_view::npos) return ReadFirstHost(authority);
  if (!IsFirstHostNumber(authority.substr(colon + 1))) return {FirstBytesVerdict::kNone, {}};
  return ReadFirstHost(authority.substr(0, colon));
}

// --- TLS (RFC 8446; of earlier versions the same) ---

constexpr uint8_t kTlsHandshakeRecord = 22;
constexpr uint8_t kTlsMajorVersion = 3;
constexpr size_t kTlsRecordHeaderBytes = 5;
constexpr size_t kMaxTlsRecordBytes = 1 << 14;
constexpr uint8_t kTlsClientHello = 1;
constexpr size_t kTlsRandomBytes = 32;
constexpr size_t kMaxTlsSessionIdBytes = 32;
constexpr uint16_t kTlsServerNameExtension = 0;
constexpr uint8_t kTlsHostName = 0;

struct TlsHandshake {
  std::vector<uint8_t> bytes;                                  // what the records carry
  FirstBytesVerdict when_they_end = FirstBytesVerdict::kMore;  // for who needs more than these
};

TlsHandshake JoinTlsRecords(Bytes so_far) {
  TlsHandshake handshake;
  for (Bytes left = so_far;;) {
    const bool is_other = (!left.empty() && left[0] != kTlsHandshakeRecord) ||
                          (left.size() > 1 && left[1] != kTlsMajorVersion);
    if (is_other) handshake.when_they_end = FirstBytesVerdict::kNone;
    if (is_other || left.size() < kTlsRecordHeaderBytes) return handshake;
    const size_t record_bytes = LoadBe16(&left[3]);
    if (record_bytes == 0 || record_bytes > kMaxTlsRecordBytes) {
      handshake.when_they_end = FirstBytesVerdict::kNone;
      return handshake;
    }
    left = left.subspan(kTlsRecordHeaderBytes);
    const Bytes record = left.first(std::min(record_bytes, left.size()));
    handshake.bytes.insert(handshake.bytes.end(), record.begin(), record.end());
    left = left.subspan(record.size());
  }
}

// Goes through a hello and down into what it contains. Once something is missing or does not fit,
// there is nothing more to read, and verdict() says what that means.
class TlsHelloReader {
 public:
  explicit TlsHelloReader(const TlsHandshake& handshake)
      : bytes_(handshake.bytes), when_they_end_(handshake.when_they_end) {}

  bool is_reading() const { return is_reading_; }
  FirstBytesVerdict verdict() const { return verdict_; }

  void End(FirstBytesVerdict verdict) {
    if (is_reading_) verdict_ = verdict;
    is_reading_ = false;
  }
  void Skip(size_t bytes) { Take(bytes); }
  Bytes Take(size_t bytes) {
    if (bytes > end_ - at_) End(FirstBytesVerdict::kNone);
    if (bytes > bytes_.size() - at_) End(when_they_end_);
    if (!is_reading()) return {};
    at_ += bytes;
    return bytes_.subspan(at_ - bytes, bytes);
  }
  // 0 once there is nothing more to read.
  uint32_t Number(size_t width) {
    uint32_t number = 0;
    for (const uint8_t byte : Take(width)) number = number << 8 | byte;
    return number;
  }
  void Expect(uint8_t byte) {
    if (Number(1) != byte) End(FirstBytesVerdict::kNone);
  }
  // What has its length in front of it, in so many bytes: past it, or on to its end at most.
  void SkipVector(size_t width, size_t max_bytes = SIZE_MAX) {
    const size_t bytes = Number(width);
    if (bytes > max_bytes) End(FirstBytesVerdict::kNone);
    Skip(bytes);
  }
  void EnterVector(size_t width) {
    const size_t bytes = Number(width);
    if (bytes > end_ - at_) End(FirstBytesVerdict::kNone);
    if (is_reading()) end_ = at_ + bytes;
  }

 private:
  const Bytes bytes_;
  const FirstBytesVerdict when_they_end_;
  bool is_reading_ = true;
  FirstBytesVerdict verdict_ = FirstBytesVerdict::kMore;
  size_t at_ = 0;
  size_t end_ = SIZE_MAX;  // of what it is in
};

FirstBytes ReadTlsServerName(Bytes so_far) {
  const TlsHandshake handshake = JoinTlsRecords(so_far);
  TlsHelloReader hello(handshake);
  hello.Expect(kTlsClientHello);
  hello.EnterVector(3);
  hello.Expect(kTlsMajorVersion);
  hello.Skip(1 + kTlsRandomBytes);
  hello.SkipVector(1, kMaxTlsSessionIdBytes);
  hello.SkipVector(2);  // cipher suites
  hello.SkipVector(1);  // compression methods
  hello.EnterVector(2);
  while (hello.Number(2) != kTlsServerNameExtension) hello.SkipVector(2);
  hello.EnterVector(2);
  hello.EnterVector(2);
  // Names of all types have their length in front (RFC 6066, section 3).
  while (hello.Number(1) != kTlsHostName) hello.SkipVector(2);
  const size_t name_bytes = hello.Number(2);
  if (name_bytes > kMaxFirstHostBytes + 1) hello.End(FirstBytesVerdict::kNone);
  const Bytes name = hello.Take(name_bytes);
  if (!hello.is_reading()) return {hello.verdict(), {}};
  return ReadFirstHost({reinterpret_cast<const char*>(name.data()), name.size()});
}

// --- HTTP/1 ---

// The longest that is registered has 17.
constexpr size_t kMaxHttpMethodBytes = 24;

// All that are registered are of these.
bool IsHttpMethodByte(unsigned char c) { return absl::ascii_isupper(c) || c == '-'; }
bool IsHttpTargetByte(unsigned char c) { return c > ' ' && c != 0x7f; }
bool IsHttpTokenByte(unsigned char c) {
  constexpr std::string_view kMarks = "!#$%&'*+-.^_`|~";
  return absl::ascii_isalnum(c) || kMarks.find(static_cast<char>(c)) != std::string_view::npos;
}
bool IsHttpValueByte(unsigned char c) { return (c >= ' ' && c != 0x7f) || c == '\t'; }

bool IsHttpSchemeByte(unsigned char c) {
  return absl::ascii_isalnum(c) || c == '+' || c == '-' || c == '.';
}

bool IsHttpHostField(std::string_view name) {
  constexpr std::string_view kHost = "host";
  return std::equal(name.begin(), name.end(), kHost.begin(), kHost.end(), [](char a, char b) {
    return absl::ascii_tolower(static_cast<unsigned char>(a)) == b;
  });
}

std::string_view TrimmedHttpValue(std::string_view value) {
  constexpr std::string_view kBlanks = " \t";
  value.remove_prefix(std::min(value.find_first_not_of(kBlanks), value.size()));
  return value.substr(0, value.find_last_not_of(kBlanks) + 1);
}

// As TlsHelloReader, of the head of a request.
class HttpHeadReader {
 public:
  explicit HttpHeadReader(Bytes so_far)
      : left_(reinterpret_cast<const char*>(so_far.data()), so_far.size()) {}

  bool is_reading() const { return is_reading_; }
  FirstBytesVerdict verdict() const { return verdict_; }

  void End(FirstBytesVerdict verdict) {
    if (is_reading_) verdict_ = verdict;
    is_reading_ = false;
  }
  // The next byte, which stays; 0 once there is nothing more to read.
  char Next() {
    if (left_.empty()) End(FirstBytesVerdict::kMore);
    return is_reading() ? left_.front() : '\0';
  }
  void Expect(std::string_view text) {
    for (const char c : text) {
      if (Next() != c) End(FirstBytesVerdict::kNone);
      if (is_reading()) left_.remove_prefix(1);
    }
  }
  // Bytes of this kind, as many as there are up to one that is not; they may not be more than that.
  std::string_view Take(bool (*is_of_kind)(unsigned char), size_t max_bytes = SIZE_MAX) {
    const auto end = std::find_if_not(left_.begin(), left_.end(), is_of_kind);
    const std::string_view taken = left_.substr(0, static_cast<size_t>(end - left_.begin()));
    if (taken.size() > max_bytes) End(FirstBytesVerdict::kNone);
    if (end == left_.end()) End(FirstBytesVerdict::kMore);
    if (!is_reading()) return {};
    left_.remove_prefix(taken.size());
    return taken;
  }
  void EndLine() {
    if (Next() == '\r') Expect("\r");
    Expect("\n");
  }

 private:
  std::string_view left_;
  bool is_reading_ = true;
  FirstBytesVerdict verdict_ = FirstBytesVerdict::kMore;
};

// Of a whole URI: what stands between "://" and the path, without the user.
FirstBytes ReadFirstUri(std::string_view uri) {
  const auto colon = std::find_if_not(uri.begin(), uri.end(), IsHttpSchemeByte);
  std::string_view authority = uri.substr(static_cast<size_t>(colon - uri.begin()));
  if (colon == uri.begin() || !authority.starts_with("://")) return {FirstBytesVerdict::kNone, {}};
  authority.remove_prefix(3);
  authority = authority.substr(0, authority.find_first_of("/?#"));
  return ReadFirstAuthority(authority.substr(authority.rfind('@') + 1));
}

FirstBytes ReadHttpHost(Bytes so_far) {
  HttpHeadReader head(so_far);
  const std::string_view method = head.Take(IsHttpMethodByte, kMaxHttpMethodBytes);
  if (method.empty()) head.End(FirstBytesVerdict::kNone);
  head.Expect(" ");
  const std::string_view target = head.Take(IsHttpTargetByte);
  const bool has_host = method == "CONNECT" || (target != "*" && !target.starts_with('/'));
  FirstBytes by_target;
  if (head.is_reading() && has_host) {
    by_target = method == "CONNECT" ? ReadFirstAuthority(target) : ReadFirstUri(target);
    if (by_target.verdict == FirstBytesVerdict::kNone) return by_target;
  }
  head.Expect(" HTTP/1.");
  if (head.Take(absl::ascii_isdigit, 1).empty()) head.End(FirstBytesVerdict::kNone);
  head.EndLine();
  if (head.is_reading() && has_host) return by_target;
  while (head.is_reading()) {
    const std::string_view field = head.Take(IsHttpTokenByte);
    // The head is at its end here, or it goes on in a way that no server takes.
    if (field.empty()) head.End(FirstBytesVerdict::kNone);
    head.Expect(":");
    const std::string_view value = head.Take(IsHttpValueByte);
    head.EndLine();
    if (head.is_reading() && IsHttpHostField(field))
      return ReadFirstAuthority(TrimmedHttpValue(value));
  }
  return {head.verdict(), {}};
}

}  // namespace

FirstBytes ReadFirstBytes(Bytes so_far) {
  if (so_far.empty()) return {};
  const Bytes first = so_far.first(std::min(so_far.size(), kMaxFirstBytes));
  FirstBytes read =
      first[0] == kTlsHandshakeRecord ? ReadTlsServerName(first) : ReadHttpHost(first);
  if (read.verdict == FirstBytesVerdict::kMore && first.size() == kMaxFirstBytes) {
    read.verdict = FirstBytesVerdict::kNone;
  }
  return read;
}

}  // namespace braid
