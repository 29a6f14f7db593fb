// TCP sockets: non-blocking, close-on-exec. Any thread; nothing here blocks, except resolve() and
// listen_on() with a host name.
#pragma once

#include <sys/socket.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "atoll/base/result.h"
#include "atoll/base/time.h"
#include "atoll/net/fd.h"

namespace reef {

struct Address {
  sockaddr_storage storage{};
  socklen_t length = 0;
};

// Where a peer may be reached: a name, or an address in numbers (IPv6 with or without brackets).
struct Endpoint {
  std::string host;
  std::uint16_t port = 0;
  bool operator==(const Endpoint&) const = default;
};
using Endpoints = std::vector<Endpoint>;

// By way of another peer that carries bytes (net/detour.h).
struct Detour;

// One address of an endpoint, and the endpoint in words. With a detour it is an address of the relay.
struct Route {
  Address address;
  std::string text;
  std::shared_ptr<const Detour> detour;
};

// "127.0.0.1:9000", "[::1]:9000"
[[nodiscard]] std::string endpoint_text(const std::string& host, std::uint16_t port);

// Addresses of a host, IPv4 and IPv6. numeric_only: never asks a name server; empty for a name.
Result<std::vector<Address>> resolve(const std::string& host, std::uint16_t port,
                                     bool numeric_only);

Result<Fd> listen_on(const std::string& host, std::uint16_t port);
[[nodiscard]] std::uint16_t local_port(int fd);
// Begins to connect; the socket becomes writable when it is through or has failed.
Result<Fd> start_connect(const Address& address);
// 0, or the errno with which a connect has ended.
[[nodiscard]] int socket_error(int fd);
// Address and port of the other side, for messages.
[[nodiscard]] std::string remote_text(int fd);
// What every link's socket wants: no delay, and an end to silent losses after `silence`.
// `keepalive`: idle time before the kernel probes; 0: never. `congestion`: choose_congestion().
void tune(int fd, Nanos silence, Nanos keepalive, const std::string& congestion);
// Bytes that one connection of this machine may have under way: the most that the kernel lets a
// socket's send buffer grow to.
double send_window();

}  // namespace reef
