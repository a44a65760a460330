#include "slowpath/http_stream.h"

#include <openssl/ssl.h>
#include <time.h>

#include <boost/asio/post.hpp>
#include <boost/asio/ssl/stream.hpp>
#include <boost/asio/write.hpp>
#include <optional>
#include <utility>

namespace braid {
namespace {

namespace asio = boost::asio;
using asio::ip::tcp;
using boost::system::error_code;

class PlainStream final : public HttpStream {
 public:
  explicit PlainStream(tcp::socket socket) : socket_(std::move(socket)) {}

  void Handshake(Done done) override {
    asio::post(socket_.get_executor(), [done = std::move(done)] { done({}, 0); });
  }
  void ReadSome(asio::mutable_buffer buffer, Done done) override {
    socket_.async_read_some(buffer, std::move(done));
  }
  void Write(const Parts& parts, Done done) override {
    asio::async_write(socket_, parts, std::move(done));
  }
  void EndWriting(Done done) override {
    error_code error;
    socket_.shutdown(tcp::socket::shutdown_send, error);
    asio::post(socket_.get_executor(), [done = std::move(done), error] { done(error, 0); });
  }
  tcp::socket& socket() override { return socket_; }

 private:
  tcp::socket socket_;
};

// The time that a handshake takes of the thread, piece by piece: each is from the first step after
// something has come to where OpenSSL waits for more. What precedes that step costs next to
// nothing.
class HandshakeMeter {
 public:
  HandshakeMeter(SSL* ssl, OnHandshakeCost on_cost) : on_cost_(std::move(on_cost)) {
    SSL_set_ex_data(ssl, Index(), this);
    SSL_set_info_callback(ssl, [](const SSL* of, int where, int) {
      static_cast<HandshakeMeter*>(SSL_get_ex_data(of, Index()))->OnStep(where);
    });
  }

 private:
  // Asio has the place of the application's data for itself.
  static int Index() {
    static const int index = SSL_get_ex_new_index(0, nullptr, nullptr, nullptr, nullptr);
    return index;
  }

  static std::chrono::nanoseconds ThreadTime() {
    timespec now{};
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return std::chrono::seconds(now.tv_sec) + std::chrono::nanoseconds(now.tv_nsec);
  }

  void OnStep(int where) {
    if ((where & SSL_ST_ACCEPT) == 0) return;
    if ((where & SSL_CB_EXIT) == 0) {
      if (!began_) began_ = ThreadTime();
      return;
    }
    if (!began_) return;
    const auto before = cost_;
    cost_ += ThreadTime() - *std::exchange(began_, std::nullopt);
    on_cost_(before, cost_);
  }

  const OnHandshakeCost on_cost_;
  std::optional<std::chrono::nanoseconds> began_;
  std::chrono::nanoseconds cost_{0};
};

class TlsStream final : public HttpStream {
 public:
  TlsStream(tcp::socket socket, std::shared_ptr<asio::ssl::context> context,
            OnHandshakeCost on_cost)
      : context_(std::move(context)),
        stream_(std::move(socket), *context_),
        meter_(stream_.native_handle(), std::move(on_cost)) {}

  void Handshake(Done done) override {
    stream_.async_handshake(asio::ssl::stream_base::server,
                            [done = std::move(done)](const error_code& error) { done(error, 0); });
  }
  void ReadSome(asio::mutable_buffer buffer, Done done) override {
    stream_.async_read_some(buffer, std::move(done));
  }
  void Write(const Parts& parts, Done done) override {
    asio::async_write(stream_, parts, std::move(done));
  }
  void EndWriting(Done done) override {
    stream_.async_shutdown([done = std::move(done)](const error_code& error) { done(error, 0); });
  }
  tcp::socket& socket() override { return stream_.next_layer(); }

 private:
  const std::shared_ptr<asio::ssl::context> context_;
  asio::ssl::stream<tcp::socket> stream_;
  HandshakeMeter meter_;
};

}  // namespace

std::unique_ptr<HttpStream> MakePlainStream(tcp::socket socket) {
  return std::make_unique<PlainStream>(std::move(socket));
}

std::unique_ptr<HttpStream> MakeTlsStream(tcp::socket socket,
                                          std::shared_ptr<asio::ssl::context> context,
                                          OnHandshakeCost on_cost) {
  return std::make_unique<TlsStream>(std::move(socket), std::move(context), std::move(on_cost));
}

}  // namespace braid
