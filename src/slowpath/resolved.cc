#include "slowpath/resolved.h"

#include <sys/socket.h>
#include <systemd/sd-bus.h>

#include <cstring>
#include <filesystem>

#include "absl/strings/str_cat.h"
#include "base/c_pointer.h"
#include "base/clock.h"

namespace braid {
namespace {

constexpr char kBusName[] = "org.freedesktop.resolve1";
constexpr char kPath[] = "/org/freedesktop/resolve1";
constexpr char kInterface[] = "org.freedesktop.resolve1.Manager";
constexpr uint64_t kPatienceUs = 2 * kSecondNs / kMicrosecondNs;

using Bus = CPointer<sd_bus, sd_bus_flush_close_unref>;
using Message = CPointer<sd_bus_message, sd_bus_message_unref>;

Bus OpenBus() {
  sd_bus* bus = nullptr;
  if (sd_bus_open_system(&bus) < 0) return nullptr;
  sd_bus_set_method_call_timeout(bus, kPatienceUs);
  return Bus(bus);
}

class Call {
 public:
  Call(sd_bus* bus, const char* method, int link) : bus_(bus), method_(method) {
    sd_bus_message* message = nullptr;
    Note(sd_bus_message_new_method_call(bus, &message, kBusName, kPath, kInterface, method));
    message_.reset(message);
    if (message != nullptr) Note(sd_bus_message_append(message, "i", link));
  }
  template <typename Write>
  void Fill(Write&& write) {
    if (result_ >= 0) Note(write(message_.get()));
  }
  absl::Status Send() {
    sd_bus_error error = SD_BUS_ERROR_NULL;
    if (result_ >= 0) Note(sd_bus_call(bus_, message_.get(), kPatienceUs, &error, nullptr));
    const std::string why = error.message != nullptr ? error.message : "";
    sd_bus_error_free(&error);
    if (result_ >= 0) return absl::OkStatus();
    return absl::UnavailableError(absl::StrCat("network.dns: systemd-resolved refuses ", method_,
                                               ": ", why.empty() ? strerror(-result_) : why));
  }

 private:
  void Note(int result) {
    if (result_ >= 0) result_ = result;
  }

  sd_bus* bus_;
  const char* method_;
  Message message_;
  int result_ = 0;
};

int WriteServers(sd_bus_message* message, const DnsConfig& dns) {
  int result = sd_bus_message_open_container(message, 'a', "(iay)");
  for (const IpAddress& server : dns.servers) {
    if (result >= 0) result = sd_bus_message_open_container(message, 'r', "iay");
    if (result >= 0) result = sd_bus_message_append(message, "i", server.socket_family());
    if (result >= 0) {
      result = sd_bus_message_append_array(message, 'y', server.bytes.data(),
                                           static_cast<size_t>(server.bytes_used()));
    }
    if (result >= 0) result = sd_bus_message_close_container(message);
  }
  return result < 0 ? result : sd_bus_message_close_container(message);
}

// "~." asks for everything to be looked up there.
int WriteDomains(sd_bus_message* message, const DnsConfig& dns) {
  int result = sd_bus_message_open_container(message, 'a', "(sb)");
  for (const std::string& domain : dns.domains) {
    if (result >= 0) result = sd_bus_message_append(message, "(sb)", domain.c_str(), 0);
  }
  if (dns.domains.empty() && result >= 0) result = sd_bus_message_append(message, "(sb)", ".", 1);
  return result < 0 ? result : sd_bus_message_close_container(message);
}

}  // namespace

bool IsResolvedUsed(const std::string& resolv_conf) {
  std::error_code error;
  const auto real = std::filesystem::canonical(resolv_conf, error);
  return !error && real.string().starts_with("/run/systemd/resolve/");
}

absl::Status SetResolvedServers(int link, const DnsConfig& dns) {
  const Bus bus = OpenBus();
  if (bus == nullptr) return absl::UnavailableError("network.dns: there is no system bus");
  Call servers(bus.get(), "SetLinkDNS", link);
  servers.Fill([&dns](sd_bus_message* message) { return WriteServers(message, dns); });
  if (absl::Status status = servers.Send(); !status.ok()) return status;
  Call domains(bus.get(), "SetLinkDomains", link);
  domains.Fill([&dns](sd_bus_message* message) { return WriteDomains(message, dns); });
  if (absl::Status status = domains.Send(); !status.ok()) return status;
  Call is_default(bus.get(), "SetLinkDefaultRoute", link);
  is_default.Fill([&dns](sd_bus_message* message) {
    return sd_bus_message_append(message, "b", dns.domains.empty() ? 1 : 0);
  });
  return is_default.Send();
}

absl::Status RevertResolvedServers(int link) {
  const Bus bus = OpenBus();
  if (bus == nullptr) return absl::UnavailableError("network.dns: there is no system bus");
  return Call(bus.get(), "RevertLink", link).Send();
}

}  // namespace braid
