// A stream that is TLS over a TCP socket. The reactor thread only.
//
// OpenSSL never touches the socket: it reads from and writes to two buffers, which this class fills
// and empties, so that "try again" has one meaning only, and a turn needs few system calls. Both
// buffers are bounded (limits below); what OpenSSL keeps besides is one record.
#pragma once

#include <memory>
#include <utility>
#include <vector>

#include "atoll/base/result.h"
#include "atoll/net/fd.h"
#include "atoll/net/stream.h"
#include "atoll/net/tls_context.h"

struct bio_st;         // OpenSSL's BIO
struct bio_method_st;  // BIO_METHOD
struct ssl_st;         // SSL

namespace reef {

class TlsStream final : public Stream {
 public:
  // Ciphertext that is read in one go; ciphertext beyond which write() takes no more.
  static constexpr std::size_t kInputBytes = 64u << 10;
  static constexpr std::size_t kOutputBytes = 256u << 10;

  static Result<std::unique_ptr<Stream>> create(const TlsContext& tls, Fd socket, Side side);
  ~TlsStream() override;
  TlsStream(const TlsStream&) = delete;
  TlsStream& operator=(const TlsStream&) = delete;

  [[nodiscard]] int fd() const override { return socket_.get(); }
  IoResult secure() override;
  IoResult read(std::span<const iovec> parts) override { return read_parts(parts, true); }
  IoResult write(std::span<const iovec> parts) override;
  [[nodiscard]] bool holds_input() const override;
  IoResult read_held(std::span<const iovec> parts) override { return read_parts(parts, false); }
  [[nodiscard]] bool holds_output() const override { return sent_ < output_.size(); }
  IoResult flush() override;
  void finish_writing() override;
  Fd release() override { return std::move(socket_); }
  [[nodiscard]] std::string holder() const override;
  [[nodiscard]] std::string explain(int error) const override;

 private:
  friend struct TlsBuffers;  // the BIO's callbacks
  TlsStream(ssl_st* ssl, Fd socket);
  IoResult read_parts(std::span<const iovec> parts, bool from_socket);
  IoResult refill();
  int encrypt(const void* bytes, std::size_t count);
  int broken(int outcome);

  ssl_st* ssl_;
  Fd socket_;
  std::vector<std::byte> input_;  // [taken_, filled_) is not yet with OpenSSL
  std::size_t taken_ = 0;
  std::size_t filled_ = 0;
  std::vector<std::byte> output_;  // from sent_ on is not yet in the socket
  std::size_t sent_ = 0;
  std::vector<std::byte> record_;  // small parts on their way into one record
  bool finished_ = false;
  std::string what_broke_;
};

}  // namespace reef
