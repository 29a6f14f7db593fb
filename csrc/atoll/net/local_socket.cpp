#include "atoll/net/local_socket.h"

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string>

namespace reef {

namespace {

constexpr int kBacklog = 64;
constexpr std::size_t kMaxDescriptors = 4;

struct LocalAddress {
  sockaddr_un storage{};
  socklen_t length = 0;
};

LocalAddress address_of(const LocalName& name) {
  const std::string text = "atoll/" + name.peer.hex() + "/" + std::to_string(name.port);
  LocalAddress address;
  address.storage.sun_family = AF_UNIX;
  // A first byte of 0 makes the name abstract: no file is involved.
  check(text.size() + 1 <= sizeof address.storage.sun_path, "address_of: the name is too long");
  std::memcpy(address.storage.sun_path + 1, text.data(), text.size());
  address.length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + text.size());
  return address;
}

Error failed(const char* what) {
  const int reason = errno;
  return Error{Code::io, reason, std::string(what) + ": " + strerror(reason)};
}

Result<Fd> make_socket() {
  Fd fd(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd.valid()) {
    return failed("cannot create a Unix socket");
  }
  return fd;
}

}  // namespace

Result<Fd> listen_locally(const LocalName& name) {
  auto fd = make_socket();
  if (!fd) {
    return fd.error();
  }
  const LocalAddress address = address_of(name);
  const auto* at = reinterpret_cast<const sockaddr*>(&address.storage);
  if (::bind(fd.value().get(), at, address.length) != 0 ||
      ::listen(fd.value().get(), kBacklog) != 0) {
    return failed("cannot listen on a Unix socket");
  }
  return fd;
}

Result<Fd> connect_locally(const LocalName& name) {
  auto fd = make_socket();
  if (!fd) {
    return fd.error();
  }
  const LocalAddress address = address_of(name);
  const auto* to = reinterpret_cast<const sockaddr*>(&address.storage);
  if (::connect(fd.value().get(), to, address.length) != 0) {
    return failed("cannot connect to a Unix socket");
  }
  return fd;
}

bool same_user(int socket) {
  ucred credentials{};
  socklen_t length = sizeof credentials;
  return ::getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &credentials, &length) == 0 &&
         credentials.uid == ::geteuid();
}

Status send_message(int socket, std::span<const std::byte> bytes, std::span<const int> fds) {
  check(fds.size() <= kMaxDescriptors, "send_message: too many descriptors");
  iovec part{const_cast<std::byte*>(bytes.data()), bytes.size()};
  alignas(cmsghdr) std::byte control[CMSG_SPACE(kMaxDescriptors * sizeof(int))] = {};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  if (!fds.empty()) {
    message.msg_control = control;
    message.msg_controllen = CMSG_SPACE(fds.size() * sizeof(int));
    cmsghdr* head = CMSG_FIRSTHDR(&message);
    head->cmsg_level = SOL_SOCKET;
    head->cmsg_type = SCM_RIGHTS;
    head->cmsg_len = CMSG_LEN(fds.size() * sizeof(int));
    std::memcpy(CMSG_DATA(head), fds.data(), fds.size() * sizeof(int));
  }
  const ssize_t sent = ::sendmsg(socket, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
  if (sent != static_cast<ssize_t>(bytes.size())) {
    return failed("cannot send on a Unix socket");
  }
  return Unit{};
}

Result<Message> receive_message(int socket, std::span<std::byte> room, std::size_t most) {
  check(most <= kMaxDescriptors, "receive_message: too many descriptors");
  iovec part{room.data(), room.size()};
  alignas(cmsghdr) std::byte control[CMSG_SPACE(kMaxDescriptors * sizeof(int))] = {};
  msghdr header{};
  header.msg_iov = &part;
  header.msg_iovlen = 1;
  header.msg_control = control;
  header.msg_controllen = sizeof control;
  const ssize_t got = ::recvmsg(socket, &header, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) {
    return Message{};
  }
  if (got < 0) {
    return failed("cannot receive on a Unix socket");
  }
  Message message;
  for (cmsghdr* at = CMSG_FIRSTHDR(&header); at != nullptr; at = CMSG_NXTHDR(&header, at)) {
    if (at->cmsg_level != SOL_SOCKET || at->cmsg_type != SCM_RIGHTS) {
      continue;
    }
    const std::size_t count = (at->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (std::size_t i = 0; i < count; ++i) {
      int fd = -1;
      std::memcpy(&fd, CMSG_DATA(at) + i * sizeof(int), sizeof fd);
      message.fds.emplace_back(fd);  // owned first, so that those beyond `most` are closed
    }
  }
  if (got == 0) {
    return Error{Code::io, 0, "the other side closed the Unix socket"};
  }
  message.bytes = static_cast<std::size_t>(got);
  if ((header.msg_flags & MSG_TRUNC) != 0) {
    message.bytes = room.size() + 1;
  }
  message.fds.resize(std::min(message.fds.size(), most));
  return message;
}

}  // namespace reef
