// A stream that is a plain TCP socket. The reactor thread only.
#pragma once

#include <utility>

#include "atoll/net/fd.h"
#include "atoll/net/stream.h"

namespace reef {

class SocketStream final : public Stream {
 public:
  explicit SocketStream(Fd socket) : socket_(std::move(socket)) {}
  [[nodiscard]] int fd() const override { return socket_.get(); }
  IoResult read(std::span<const iovec> parts) override;
  IoResult write(std::span<const iovec> parts) override;
  void finish_writing() override;
  Fd release() override { return std::move(socket_); }
  [[nodiscard]] std::string explain(int error) const override;

 private:
  Fd socket_;
};

}  // namespace reef
