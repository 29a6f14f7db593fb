#include "atoll/net/tcp_figures.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

namespace reef {

TcpFigures tcp_figures(int fd) {
  tcp_info info{};
  socklen_t length = sizeof(info);
  if (::getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &length) != 0) {
    return {};
  }
  return {static_cast<Nanos>(info.tcpi_rtt) * 1'000, info.tcpi_total_retrans};
}

}  // namespace reef
