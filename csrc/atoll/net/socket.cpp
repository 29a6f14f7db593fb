#include "atoll/net/socket.h"

#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <memory>

#include "atoll/net/path.h"

namespace reef {

namespace {

struct FreeAddresses {
  void operator()(addrinfo* list) const { ::freeaddrinfo(list); }
};

// Enough for a burst of joiners; those beyond retry.
constexpr int kBacklog = 256;
// Inside a host the delay is nothing, and a queue between sender and receiver only leaves the
// cache: the kernel's own choice, megabytes, costs half as much again (docs/performance.md).
constexpr int kBufferOnHost = 256 << 10;

template <typename Sockaddr>
Sockaddr as(const Address& address) {
  Sockaddr one;
  std::memcpy(&one, &address.storage, sizeof one);
  return one;
}

bool same_host(const Address& a, const Address& b) {
  if (a.storage.ss_family != b.storage.ss_family) return false;
  if (a.storage.ss_family == AF_INET6) {
    return std::memcmp(as<sockaddr_in6>(a).sin6_addr.s6_addr, as<sockaddr_in6>(b).sin6_addr.s6_addr, 16) == 0;
  }
  return as<sockaddr_in>(a).sin_addr.s_addr == as<sockaddr_in>(b).sin_addr.s_addr;
}

}  // namespace

std::string endpoint_text(const std::string& host, std::uint16_t port) {
  const bool v6 = host.find(':') != std::string::npos && host.front() != '[';
  return (v6 ? "[" + host + "]" : host) + ":" + std::to_string(port);
}

Result<std::vector<Address>> resolve(const std::string& host, std::uint16_t port,
                                     bool numeric_only) {
  addrinfo hints{};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_NUMERICSERV | (numeric_only ? AI_NUMERICHOST : 0);
  addrinfo* found = nullptr;
  const bool bracketed = host.size() > 2 && host.front() == '[' && host.back() == ']';
  const std::string name = bracketed ? host.substr(1, host.size() - 2) : host;
  const int failed = ::getaddrinfo(name.c_str(), std::to_string(port).c_str(), &hints, &found);
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
    const int off = 0;
    if (fd.valid() && address.storage.ss_family == AF_INET6) {  // "::" serves IPv4, too
      ::setsockopt(fd.get(), IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
    }
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
  return ntohs(address.storage.ss_family == AF_INET6 ? as<sockaddr_in6>(address).sin6_port
                                                     : as<sockaddr_in>(address).sin_port);
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

std::string remote_text(int fd) {
  Address address;
  address.length = sizeof address.storage;
  auto* to = reinterpret_cast<sockaddr*>(&address.storage);
  char host[NI_MAXHOST];
  char port[NI_MAXSERV];
  if (::getpeername(fd, to, &address.length) != 0 ||
      ::getnameinfo(to, address.length, host, sizeof host, port, sizeof port,
                    NI_NUMERICHOST | NI_NUMERICSERV) != 0) {
    return "an address that is gone";
  }
  return endpoint_text(host, static_cast<std::uint16_t>(std::strtoul(port, nullptr, 10)));
}

// Whether both ends have one address: of this host.
bool stays_on_host(int fd) {
  Address own;
  Address other;
  own.length = other.length = sizeof own.storage;
  if (::getsockname(fd, reinterpret_cast<sockaddr*>(&own.storage), &own.length) != 0 ||
      ::getpeername(fd, reinterpret_cast<sockaddr*>(&other.storage), &other.length) != 0) {
    return false;
  }
  return same_host(own, other);
}

// Best effort: none of these is needed for correctness, and some sandboxes lack one or another.
void tune(int fd, Nanos silence, Nanos keepalive, const std::string& congestion) {
  const int on = 1;
  ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  const auto milliseconds = static_cast<unsigned>(
      std::clamp<Nanos>(silence / kMillisecond, 1, 24 * 3'600 * 1'000));
  ::setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &milliseconds, sizeof milliseconds);
  if (keepalive > 0) {
    const auto seconds =
        static_cast<int>(std::clamp<Nanos>(keepalive / kSecond, 1, 24 * 3'600));
    ::setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
    ::setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &seconds, sizeof seconds);
    ::setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &seconds, sizeof seconds);
  }
  ::setsockopt(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &kUnsentBytes, sizeof kUnsentBytes);
  choose_congestion(fd, congestion);
  if (stays_on_host(fd)) {
    ::setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &kBufferOnHost, sizeof kBufferOnHost);
  }
}

double send_window() {
  constexpr double kUsual = 4 << 20;
  std::ifstream file("/proc/sys/net/ipv4/tcp_wmem");
  double least = 0;
  double first = 0;
  double most = 0;
  return file >> least >> first >> most && most > 0 ? most : kUsual;
}

}  // namespace reef
