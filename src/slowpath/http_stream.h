// The bytes of one connection, plain or through TLS, so that what is said there need not care.
#pragma once

#include <array>
#include <boost/asio/buffer.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ssl/context.hpp>
#include <chrono>
#include <cstddef>
#include <functional>
#include <memory>

namespace braid {

// At most one read and one of the others may be under way. Buffers are borrowed until `done` runs,
// which it does on the thread of the io_context, never within the call.
class HttpStream {
 public:
  using Done = std::function<void(const boost::system::error_code&, size_t bytes)>;
  using Parts = std::array<boost::asio::const_buffer, 2>;

  virtual ~HttpStream() = default;

  virtual void Handshake(Done done) = 0;
  virtual void ReadSome(boost::asio::mutable_buffer buffer, Done done) = 0;
  virtual void Write(const Parts& parts, Done done) = 0;  // all of them
  // Tells the other end that no more comes.
  virtual void EndWriting(Done done) = 0;
  virtual boost::asio::ip::tcp::socket& socket() = 0;
};

std::unique_ptr<HttpStream> MakePlainStream(boost::asio::ip::tcp::socket socket);
// What the handshake of one connection has taken of this thread's time: up to then, and now.
using OnHandshakeCost = std::function<void(std::chrono::steady_clock::duration before,
                                           std::chrono::steady_clock::duration cost)>;
std::unique_ptr<HttpStream> MakeTlsStream(boost::asio::ip::tcp::socket socket,
                                          std::shared_ptr<boost::asio::ssl::context> context,
                                          OnHandshakeCost on_cost);

}  // namespace braid
