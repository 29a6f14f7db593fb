#include "atoll/net/socket_stream.h"

#include <sys/socket.h>

#include <cerrno>
#include <cstring>

namespace reef {

IoResult SocketStream::read(std::span<const iovec> parts) {
  while (true) {
    const ssize_t got = ::readv(socket_.get(), parts.data(), static_cast<int>(parts.size()));
    if (got >= 0) {
      return {static_cast<std::size_t>(got), 0};
    }
    if (errno != EINTR) {
      return {0, errno};
    }
  }
}

IoResult SocketStream::write(std::span<const iovec> parts) {
  msghdr message{};
  message.msg_iov = const_cast<iovec*>(parts.data());
  message.msg_iovlen = parts.size();
  while (true) {
    const ssize_t sent = ::sendmsg(socket_.get(), &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent >= 0) {
      return {static_cast<std::size_t>(sent), 0};
    }
    if (errno != EINTR) {
      return {0, errno == ENOBUFS ? EAGAIN : errno};
    }
  }
}

void SocketStream::finish_writing() { ::shutdown(socket_.get(), SHUT_WR); }

std::string SocketStream::explain(int error) const { return strerror(error); }

}  // namespace reef
