// A client of HTTP that says what it likes, byte for byte, plain or through TLS.
#pragma once

#include <gtest/gtest.h>
#include <netinet/in.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <cstdint>
#include <map>
#include <string>
#include <string_view>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "base/address.h"

namespace braid::testing {

struct HttpAnswer {
  int status = 0;                             // 0: none came
  std::map<std::string, std::string> fields;  // names in lower case
  std::string body;
};

class HttpClient {
 public:
  static constexpr int kPatienceSeconds = 10;  // what no test takes unless it fails

  // `receive_bytes` is of the kernel's buffer; 0: as it likes.
  explicit HttpClient(const Endpoint& server, int receive_bytes = 0)
      : fd_(socket(server.address.socket_family(), SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    if (receive_bytes != 0) {
      setsockopt(fd_, SOL_SOCKET, SO_RCVBUF, &receive_bytes, sizeof(receive_bytes));
    }
    const timeval patience{kPatienceSeconds, 0};
    setsockopt(fd_, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    setsockopt(fd_, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
    sockaddr_storage address;
    const socklen_t length = server.To(address);
    EXPECT_EQ(connect(fd_, reinterpret_cast<sockaddr*>(&address), length), 0);
  }
  ~HttpClient() {
    SSL_free(ssl_);
    if (fd_ >= 0) close(fd_);
  }
  HttpClient(const HttpClient&) = delete;
  HttpClient& operator=(const HttpClient&) = delete;

  // False when the server does not want to. `version` is the one and only that is offered.
  bool StartTls(int version = TLS1_3_VERSION) {
    SSL_CTX* context = SSL_CTX_new(TLS_client_method());
    SSL_CTX_set_security_level(context, 0);  // which would not offer old versions
    SSL_CTX_set_min_proto_version(context, version);
    SSL_CTX_set_max_proto_version(context, version);
    ssl_ = SSL_new(context);
    SSL_CTX_free(context);
    SSL_set_fd(ssl_, fd_);
    return SSL_connect(ssl_) == 1;
  }

  // Of the server's certificate.
  std::string CommonName() const {
    X509* certificate = SSL_get1_peer_certificate(ssl_);
    if (certificate == nullptr) return "";
    char name[256] = "";
    X509_NAME_get_text_by_NID(X509_get_subject_name(certificate), NID_commonName, name,
                              sizeof(name));
    X509_free(certificate);
    return name;
  }

  // False when the server has hung up.
  bool Send(std::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t sent = ssl_ != nullptr
                               ? SSL_write(ssl_, bytes.data(), static_cast<int>(bytes.size()))
                               : send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (sent <= 0) return false;
      bytes.remove_prefix(static_cast<size_t>(sent));
    }
    return true;
  }

  // Up to and with `end`; what there is where the connection or patience ends before.
  std::string ReadUntil(std::string_view end) {
    while (got_.find(end) == got_.npos && Receive()) {
    }
    const size_t at = got_.find(end);
    return Take(at == got_.npos ? got_.size() : at + end.size());
  }

  HttpAnswer ReadHead() {
    HttpAnswer answer;
    const std::string status_line = ReadUntil("\r\n");
    if (!status_line.starts_with("HTTP/1.1 ")) return answer;
    EXPECT_TRUE(absl::SimpleAtoi(status_line.substr(9, 3), &answer.status)) << status_line;
    while (true) {
      std::string line = ReadUntil("\r\n");
      if (line.size() <= 2) return answer;
      const size_t colon = line.find(": ");
      EXPECT_NE(colon, line.npos) << line;
      answer.fields[absl::AsciiStrToLower(line.substr(0, colon))] =
          line.substr(colon + 2, line.size() - colon - 4);
    }
  }

  // With the body that the head announces, unless `to_head` was asked for.
  HttpAnswer ReadAnswer(bool to_head = false) {
    HttpAnswer answer = ReadHead();
    size_t bytes = 0;
    const auto length = answer.fields.find("content-length");
    if (to_head || length == answer.fields.end()) return answer;
    EXPECT_TRUE(absl::SimpleAtoi(length->second, &bytes));
    while (got_.size() < bytes && Receive()) {
    }
    answer.body = Take(bytes);
    return answer;
  }

  // Whether the server hangs up, without a word more.
  bool IsClosed() { return got_.empty() && !Receive(); }
  bool IsSilentFor(int milliseconds) {
    pollfd wait{.fd = fd_, .events = POLLIN, .revents = 0};
    return got_.empty() && poll(&wait, 1, milliseconds) == 0;
  }
  void EndRequests() { shutdown(fd_, SHUT_WR); }

 private:
  bool Receive() {
    char chunk[16 * 1024];
    const ssize_t got =
        ssl_ != nullptr ? SSL_read(ssl_, chunk, sizeof(chunk)) : recv(fd_, chunk, sizeof(chunk), 0);
    if (got <= 0) return false;
    got_.append(chunk, static_cast<size_t>(got));
    return true;
  }

  std::string Take(size_t bytes) {
    std::string taken = got_.substr(0, bytes);
    got_.erase(0, bytes);
    return taken;
  }

  int fd_;
  SSL* ssl_ = nullptr;
  std::string got_;
};

}  // namespace braid::testing
