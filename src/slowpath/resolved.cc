#include "slowpath/resolved.h"

#include <sys/socket.h>
#include <systemd/sd-bus.h>

#include <cerrno>
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
constexpr DurationNs kResolvedPatienceNs = 2 * kSecondNs;

// What was not sent in time is not waited for either.
using BusConnection = CPointer<sd_bus, sd_bus_close_unref>;
using Message = CPointer<sd_bus_message, sd_bus_message_unref>;

absl::Status ResolvedError(int error, const std::string& what) {
  const std::string text = absl::StrCat("network.dns: ", what);
  return error == -ETIMEDOUT ? absl::DeadlineExceededError(text) : absl::UnavailableError(text);
}

// A connection to the system bus, and the time that is left for all that is asked by it.
class Bus {
 public:
  // sd_bus_call() would wait for the bus itself as long as that pleases.
  absl::Status Open() {
    sd_bus* bus = nullptr;
    int result = sd_bus_open_system(&bus);
    bus_.reset(bus);
    while (result >= 0 && sd_bus_is_ready(bus) == 0) {
      result = sd_bus_process(bus, nullptr);
      if (result != 0) continue;
      const uint64_t left_us = LeftUs();
      result = left_us == 0 ? -ETIMEDOUT : sd_bus_wait(bus, left_us);
    }
    if (result >= 0) return absl::OkStatus();
    return ResolvedError(result, absl::StrCat("no system bus answers: ", strerror(-result)));
  }

  sd_bus* get() const { return bus_.get(); }
  uint64_t LeftUs() const {
    const TimeNs now_ns = MonotonicNowNs();
    return now_ns < deadline_ns_ ? (deadline_ns_ - now_ns) / kMicrosecondNs : 0;
  }

 private:
  const TimeNs deadline_ns_ = MonotonicNowNs() + kResolvedPatienceNs;
  BusConnection bus_;
};

class Call {
 public:
  Call(const Bus& bus, const char* method, int link) : bus_(bus), method_(method) {
    sd_bus_message* message = nullptr;
    Note(sd_bus_message_new_method_call(bus.get(), &message, kBusName, kPath, kInterface, method));
    message_.reset(message);
    if (message != nullptr) Note(sd_bus_message_append(message, "i", link));
  }
  template <typename Write>
  void Fill(Write&& write) {
    if (result_ >= 0) Note(write(message_.get()));
  }
  absl::Status Send() {
    sd_bus_error error = SD_BUS_ERROR_NULL;
    const uint64_t left_us = bus_.LeftUs();
    if (left_us == 0) Note(-ETIMEDOUT);  // to sd_bus_call() 0 is a default of its own
    if (result_ >= 0) Note(sd_bus_call(bus_.get(), message_.get(), left_us, &error, nullptr));
    const std::string why = error.message != nullptr ? error.message : "";
    sd_bus_error_free(&error);
    if (result_ >= 0) return absl::OkStatus();
    return ResolvedError(result_, absl::StrCat("systemd-resolved refuses ", method_, ": ",
                                               why.empty() ? strerror(-result_) : why));
  }

 private:
  void Note(int result) {
    if (result_ >= 0) result_ = result;
  }

  const Bus& bus_;
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
  Bus bus;
  if (absl::Status status = bus.Open(); !status.ok()) return status;
  Call servers(bus, "SetLinkDNS", link);
  servers.Fill([&dns](sd_bus_message* message) { return WriteServers(message, dns); });
  if (absl::Status status = servers.Send(); !status.ok()) return status;
  Call domains(bus, "SetLinkDomains", link);
  domains.Fill([&dns](sd_bus_message* message) { return WriteDomains(message, dns); });
  if (absl::Status status = domains.Send(); !status.ok()) return status;
  Call is_default(bus, "SetLinkDefaultRoute", link);
  is_default.Fill([&dns](sd_bus_message* message) {
    return sd_bus_message_append(message, "b", dns.domains.empty() ? 1 : 0);
  });
  return is_default.Send();
}

absl::Status RevertResolvedServers(int link) {
  Bus bus;
  if (absl::Status status = bus.Open(); !status.ok()) return status;
  return Call(bus, "RevertLink", link).Send();
}

}  // namespace braid
