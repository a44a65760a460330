// The certificate and private key by which the HTTP API shows who it is, read anew when the files
// change. TLS 1.2 at least.
#pragma once

#include <boost/asio/ssl/context.hpp>
#include <chrono>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "slowpath/config.h"
#include "slowpath/small_file.h"

namespace braid {

// Whether the files load and belong together. Errors name the file.
[[nodiscard]] absl::Status CheckTlsFiles(const TlsFiles& files);

class TlsIdentity {
 public:
  using Context = std::shared_ptr<boost::asio::ssl::context>;

  static absl::StatusOr<TlsIdentity> Load(TlsFiles files);

  // For the next connection; those that are open keep theirs. Where changed files do not load the
  // ones of before go on being used, and the log says so.
  const Context& Current(std::chrono::steady_clock::time_point now);

 private:
  TlsIdentity(TlsFiles files, const FileVersion& certificate, const FileVersion& key,
              Context context);

  TlsFiles files_;
  FileVersion certificate_version_;
  FileVersion key_version_;
  Context context_;
  std::chrono::steady_clock::time_point next_look_{};
};

}  // namespace braid
