#include "slowpath/config_control.h"

#include <sys/un.h>

#include <algorithm>
#include <filesystem>
#include <optional>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "slowpath/config_values.h"

namespace braid {
namespace {

constexpr size_t kMaxSocketPathBytes = sizeof(sockaddr_un::sun_path) - 1;
constexpr size_t kMaxHosts = 64;
constexpr size_t kMaxOrigins = 64;
constexpr std::string_view kSchemes[] = {"http://", "https://"};

std::string Absolute(const std::string& folder, const std::string& file) {
  return (std::filesystem::path(folder) / file).lexically_normal().string();
}

// The name of a file; empty after a mistake.
std::string ReadFileName(const std::optional<Node>& node, const std::string& folder) {
  const auto file = node ? node->Text() : std::nullopt;
  return file ? Absolute(folder, *file) : "";
}

// A token in the place of its file's name: letters, digits and what else RFC 6750 allows, long,
// with digits or both cases as chance gives them, and not as a path or a name with an extension
// looks.
bool LooksLikeAToken(const std::string& text, const std::string& path) {
  constexpr size_t kLeastBytes = 24;
  constexpr size_t kMostOfExtension = 8;
  constexpr std::string_view kMarks = "-._~+/=";
  const auto is_of_tokens = [kMarks](unsigned char c) {
    return absl::ascii_isalnum(c) || kMarks.find(static_cast<char>(c)) != kMarks.npos;
  };
  if (text.size() < kLeastBytes || text.front() == '/' || text.front() == '.') return false;
  if (!std::all_of(text.begin(), text.end(), is_of_tokens)) return false;
  const size_t dot = text.rfind('.');
  if (dot != text.npos && text.size() - dot - 1 <= kMostOfExtension) return false;
  const auto has = [&text](bool (*is)(unsigned char)) {
    return std::any_of(text.begin(), text.end(), is);
  };
  const bool is_random = has(absl::ascii_isdigit) || text.back() == '=' ||
                         (has(absl::ascii_isupper) && has(absl::ascii_islower));
  std::error_code error;
  return is_random && !std::filesystem::exists(path, error);
}

void ReadToken(const Section& http, const std::string& folder, Report& report, HttpConfig& to) {
  const auto node = http.Find("token_file");
  const auto file = node ? node->Text() : std::nullopt;
  if (!file) return;
  if (LooksLikeAToken(*file, Absolute(folder, *file))) {
    node->Wrong(
        "must be the name of a file, but is a token itself: put it into a file with mode 0600 and "
        "take it out of here");
    return;
  }
  to.token_file = Absolute(folder, *file);
  report.HttpFile(node->pointer(), to.token_file, "");
}

void ReadTls(const Section& http, const std::string& folder, Report& report, HttpConfig& to) {
  const auto node = http.Find("tls");
  if (!node) return;
  const Section tls(*node, {"certificate_file", "key_file"});
  if (!node->value().is_object()) return;
  const auto certificate =
      tls.Need("certificate_file", "the name of a file with a certificate in PEM");
  const auto key = tls.Need("key_file", "the name of the file with its private key in PEM");
  to.tls = {.certificate_file = ReadFileName(certificate, folder),
            .key_file = ReadFileName(key, folder)};
  if (to.tls->certificate_file.empty() || to.tls->key_file.empty()) return;
  report.HttpFile(key->pointer(), to.tls->key_file, to.tls->certificate_file);
}

// As browsers write it in Host, but without a port: a web server before this one may have another.
std::optional<std::string> ReadHost(const Node& node) {
  const auto text = node.Text();
  if (!text) return std::nullopt;
  if (const auto address = IpAddress::Parse(*text)) return address->ToString();
  std::string host = absl::AsciiStrToLower(*text);
  if (host.ends_with('.')) host.pop_back();
  if (IsHostName(host)) return host;
  node.Wrong("must be a name or an address without a port, such as \"braid.example.org\"");
  return std::nullopt;
}

// "https://panel.example:8443", as browsers write it in Origin: without a path, and without the
// port that is the scheme's own.
std::optional<std::string> ReadOrigin(const Node& node) {
  const auto text = node.Text();
  if (!text) return std::nullopt;
  const std::string origin = absl::AsciiStrToLower(*text);
  for (const std::string_view scheme : kSchemes) {
    if (!origin.starts_with(scheme)) continue;
    const std::string rest = origin.substr(scheme.size());
    const std::string own_port = scheme == "https://" ? ":443" : ":80";
    if (!absl::EndsWith(rest, own_port) && (IsHostName(rest) || IsHostAndPort(rest))) return origin;
  }
  node.Wrong(
      "must be a scheme, a host and, unless it is the scheme's own, a port, such as "
      "\"https://panel.example:8443\"");
  return std::nullopt;
}

void ReadNames(const Section& http, HttpConfig& to) {
  if (const auto hosts = http.Find("hosts")) {
    for (const Node& node : hosts->List(0, kMaxHosts)) {
      if (const auto host = ReadHost(node)) to.hosts.push_back(*host);
    }
  }
  if (const auto origins = http.Find("origins")) {
    for (const Node& node : origins->List(0, kMaxOrigins)) {
      if (const auto origin = ReadOrigin(node)) to.origins.push_back(*origin);
    }
  }
}

void CheckOffLoopback(const Section& http, const HttpConfig& config) {
  if (config.address.address.is_loopback()) return;
  constexpr char kWhy[] = "is missing, but needed where HTTP listens off the loopback";
  if (!http.Find("token_file")) {
    http.Wrong("token_file", absl::StrCat(kWhy, "; write the name of a file with a token"));
  }
  if (!http.Find("tls")) {
    http.Wrong("tls", absl::StrCat(kWhy, "; write {\"certificate_file\": …, \"key_file\": …}"));
  }
}

void ReadHttp(const Node& node, const std::string& folder, Report& report,
              std::optional<HttpConfig>& to) {
  const Section http(node, {"address", "token_file", "tls", "hosts", "origins"});
  if (!node.value().is_object()) return;
  to.emplace();
  ReadToken(http, folder, report, *to);
  ReadTls(http, folder, report, *to);
  ReadNames(http, *to);
  const auto address = http.Need("address", "an address and port such as \"127.0.0.1:7780\"");
  const auto endpoint = address ? ReadEndpoint(*address, Unspecified::kAllowed) : std::nullopt;
  if (!endpoint) return;
  to->address = *endpoint;
  CheckOffLoopback(http, *to);
}

}  // namespace

void ReadControl(const Section& control, const std::string& folder, Report& report,
                 ControlConfig& to) {
  if (const auto socket = control.Find("socket")) {
    if (std::string path = ReadFileName(socket, folder); !path.empty()) to.socket = path;
    if (to.socket.size() > kMaxSocketPathBytes) {
      socket->Wrong(absl::StrCat("is too long: with its folder it must have at most ",
                                 kMaxSocketPathBytes, " bytes"));
    }
  }
  if (const auto http = control.Find("http")) ReadHttp(*http, folder, report, to.http);
}

}  // namespace braid
