// TCP sockets: non-blocking, close-on-exec. Any thread; nothing here blocks, except resolve() and
// listen_on() with a host name.
#pragma once

#include <sys/socket.h>

#include <cstdint>
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
// What every link's socket wants: no delay, and an end to silent losses after `silence`.
void tune(int fd, Nanos silence);

}  // namespace reef
