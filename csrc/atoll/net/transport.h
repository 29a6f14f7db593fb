// By what means a link's bytes travel. A value. Any thread.
#pragma once

#include <cstdint>

namespace reef {

enum class Transport : std::uint8_t {
  none = 0,  // there is no link
  tcp = 1,
  tls = 2,
  shm = 3,  // memory that both peers share
};

[[nodiscard]] constexpr const char* transport_name(Transport transport) {
  switch (transport) {
    case Transport::none: return "";
    case Transport::tcp: return "tcp";
    case Transport::tls: return "tls";
    case Transport::shm: return "shm";
  }
  return "";
}

}  // namespace reef
