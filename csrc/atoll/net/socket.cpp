#include "atoll/net/socket.h"

#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>

namespace reef {

namespace {

struct FreeAddresses {
  void operator()(addrinfo* list) const { ::freeaddrinfo(list); }
};

// Enough for a burst of joiners; those beyond retry.
constexpr int kBacklog = 256;
// Unsent bytes that the kernel keeps for one socket. What is in the kernel can no longer be
// overtaken by something urgent, nor be sent on another connection; much less than this and the
// kernel runs dry between two wake-ups of the reactor.
constexpr int kUnsentBytes = 1 << 20;

}  // namespace

std::string endpoint_text(const std::string& host, std::uint16_t port) {
  const bool v6 = host.find(':') != std::string::npos;
  return (v6 ? "[" + host + "]" : host) + ":" + std::to_string(port);
}

Result<std::vector<Address>> resolve(const std::string& host, std::uint16_t port,
                                     bool numeric_only) {
  addrinfo hints{};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_NUMERICSERV | (numeric_only ? AI_NUMERICHOST : 0);
  addrinfo* found = nullptr;
  const int failed = ::getaddrinfo(host.c_str(), std::to_string(port).c_str(), &hints, &found);
  const int reason = failed == EAI_SYSTEM ? errno : 0;
  std::unique_ptr<addrinfo, FreeAddresses> owner(found);
  std::vector<Address> addresses;
  if (failed == EAI_NONAME && numeric_only) {
    return addresses;
  }
  if (failed != 0) {
    return Error{Code::io, reason, "cannot resolve host " + host + ": " + ::gai_strerror(failed)};
  }
  for (const addrinfo* at = found; at != nullptr; at = at->ai_next) {
    Address address;
    if (at->ai_addrlen <= sizeof address.storage) {
      std::memcpy(&address.storage, at->ai_addr, at->ai_addrlen);
      address.length = at->ai_addrlen;
      addresses.push_back(address);
    }
  }
  return addresses;
}

Result<Fd> listen_on(const std::string& host, std::uint16_t port) {
  auto addresses = resolve(host, port, false);
  if (!addresses) {
    return addresses.error();
  }
  int reason = EADDRNOTAVAIL;
  for (const Address& address : addresses.value()) {
    Fd fd(::socket(address.storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    const int on = 1;
    if (fd.valid() &&
        ::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) == 0 &&
        ::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address.storage), address.length) ==
            0 &&
        ::listen(fd.get(), kBacklog) == 0) {
      return fd;
    }
    reason = errno;
  }
  if (reason == EADDRINUSE) {
    return Error{Code::io, reason, "port " + std::to_string(port) + " on " + host + " is in use"};
  }
  return Error{Code::io, reason,
               "cannot listen on " + endpoint_text(host, port) + ": " + strerror(reason)};
}

std::uint16_t local_port(int fd) {
  Address address;
  address.length = sizeof address.storage;
  const int failed =
      ::getsockname(fd, reinterpret_cast<sockaddr*>(&address.storage), &address.length);
  check(failed == 0, "local_port: not a bound socket");
  if (address.storage.ss_family == AF_INET6) {
    sockaddr_in6 v6{};
    std::memcpy(&v6, &address.storage, sizeof v6);
    return ntohs(v6.sin6_port);
  }
  sockaddr_in v4{};
  std::memcpy(&v4, &address.storage, sizeof v4);
  return ntohs(v4.sin_port);
}

Result<Fd> start_connect(const Address& address) {
  Fd fd(::socket(address.storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd.valid()) {
    const int reason = errno;
    return Error{Code::io, reason, strerror(reason)};
  }
  const auto* to = reinterpret_cast<const sockaddr*>(&address.storage);
  if (::connect(fd.get(), to, address.length) != 0 && errno != EINPROGRESS) {
    const int reason = errno;
    return Error{Code::io, reason, strerror(reason)};
  }
  return fd;
}

int socket_error(int fd) {
  int error = 0;
  socklen_t length = sizeof error;
  if (::getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length) != 0) {
    return errno;
  }
  return error;
}

// Best effort: none of these is needed for correctness, and some sandboxes lack one or another.
void tune(int fd, Nanos silence) {
  const int on = 1;
  ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  const auto milliseconds = static_cast<unsigned>(
      std::clamp<Nanos>(silence / kMillisecond, 1, 24 * 3'600 * 1'000));
  ::setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &milliseconds, sizeof milliseconds);
  ::setsockopt(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &kUnsentBytes, sizeof kUnsentBytes);
}

}  // namespace reef
