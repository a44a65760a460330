#include "slowpath/tls_identity.h"

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <spdlog/spdlog.h>

#include <boost/asio/buffer.hpp>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "slowpath/access_token.h"
#include "slowpath/key_file.h"

namespace braid {
namespace {

namespace asio = boost::asio;
using boost::system::error_code;

constexpr size_t kMaxPemBytes = 256 * 1024;

absl::StatusOr<std::string> ReadPem(const std::string& path, FilePrivacy privacy) {
  auto text = ReadSmallFile(path, kMaxPemBytes, privacy);
  if (text.ok()) return text;
  return InFile(path, text.status());
}

absl::Status BadPem(const std::string& path, std::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat(path, ": ", std::string(what)));
}

void HardenContext(asio::ssl::context& context) {
  SSL_CTX* native = context.native_handle();
  SSL_CTX_set_min_proto_version(native, TLS1_2_VERSION);
  SSL_CTX_set_options(native, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION | SSL_OP_NO_TICKET |
                                  SSL_OP_CIPHER_SERVER_PREFERENCE);
  SSL_CTX_set_session_cache_mode(native, SSL_SESS_CACHE_OFF);
  // Idle connections hold no buffers.
  SSL_CTX_set_mode(native, SSL_MODE_RELEASE_BUFFERS);
}

// Asking whoever sits at the terminal, as OpenSSL would by itself, is no way for a daemon.
std::string NoPassword(size_t, asio::ssl::context::password_purpose) { return ""; }

absl::StatusOr<TlsIdentity::Context> MakeContext(const TlsFiles& files) {
  const absl::Cleanup forget_errors = [] { ERR_clear_error(); };
  const auto certificate = ReadPem(files.certificate_file, FilePrivacy::kAny);
  if (!certificate.ok()) return certificate.status();
  auto key = ReadPem(files.key_file, FilePrivacy::kOwnerOnly);
  if (!key.ok()) return key.status();
  const absl::Cleanup wipe = [&key] { Wipe(*key); };

  auto context = std::make_shared<asio::ssl::context>(asio::ssl::context::tls_server);
  HardenContext(*context);
  error_code error;
  context->set_password_callback(NoPassword, error);
  if (!error) context->use_certificate_chain(asio::buffer(*certificate), error);
  if (error) {
    return BadPem(files.certificate_file, "does not hold a certificate in PEM that can be used");
  }
  context->use_private_key(asio::buffer(*key), asio::ssl::context::pem, error);
  if (error &&
      ERR_GET_REASON(static_cast<unsigned long>(error.value())) == X509_R_KEY_VALUES_MISMATCH) {
    return BadPem(files.key_file, "is not the key of the certificate in " + files.certificate_file);
  }
  if (error) return BadPem(files.key_file, "does not hold a private key in PEM without a password");
  if (SSL_CTX_check_private_key(context->native_handle()) != 1) {
    return BadPem(files.key_file, "is not the key of the certificate in " + files.certificate_file);
  }
  return context;
}

// It is used all the same: clients may have reasons to take it, and a daemon that does not start
// could not be mended from afar.
void WarnOfExpiry(const TlsIdentity::Context& context, const std::string& file) {
  const X509* certificate = SSL_CTX_get0_certificate(context->native_handle());
  if (X509_cmp_current_time(X509_get0_notAfter(certificate)) < 0) {
    spdlog::warn("http: the certificate in {} has expired; replace the file", file);
  }
}

}  // namespace

absl::Status CheckTlsFiles(const TlsFiles& files) { return MakeContext(files).status(); }

absl::StatusOr<TlsIdentity> TlsIdentity::Load(TlsFiles files) {
  // Before they are read: what changes meanwhile is read again.
  const FileVersion certificate = VersionOf(files.certificate_file);
  const FileVersion key = VersionOf(files.key_file);
  auto context = MakeContext(files);
  if (!context.ok()) return context.status();
  WarnOfExpiry(*context, files.certificate_file);
  return TlsIdentity(std::move(files), certificate, key, *std::move(context));
}

TlsIdentity::TlsIdentity(TlsFiles files, const FileVersion& certificate, const FileVersion& key,
                         Context context)
    : files_(std::move(files)),
      certificate_version_(certificate),
      key_version_(key),
      context_(std::move(context)) {}

const TlsIdentity::Context& TlsIdentity::Current(std::chrono::steady_clock::time_point now) {
  if (now < next_look_) return context_;
  next_look_ = now + kLookAtFilesEvery;
  const FileVersion certificate = VersionOf(files_.certificate_file);
  const FileVersion key = VersionOf(files_.key_file);
  if (certificate == certificate_version_ && key == key_version_) return context_;
  certificate_version_ = certificate;
  key_version_ = key;
  auto context = MakeContext(files_);
  if (context.ok()) {
    context_ = *std::move(context);
    spdlog::info("http: the certificate was read anew from {}", files_.certificate_file);
    WarnOfExpiry(context_, files_.certificate_file);
  } else {
    // Two files are seldom replaced at the same moment; the second one's change comes here again.
    spdlog::warn("http: the certificate of before stays in use: {}",
                 std::string(context.status().message()));
  }
  return context_;
}

}  // namespace braid
