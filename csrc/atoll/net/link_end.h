// Why a link ended, or never came up. A value. Any thread.
#pragma once

#include <cstdint>

namespace reef {

enum class LinkEnd : std::uint8_t {
  unreachable = 1,  // dialled in vain
  reset = 2,        // a connection closed or failed
  silent = 3,       // nothing was heard for `silence`
  protocol = 4,     // the peer broke the wire format
  bye = 5,          // the peer ended it on purpose
  dropped = 6,      // this side ended it on purpose
  died = 7,         // the kernel says that the peer's process, on this host, is no more
};

[[nodiscard]] const char* link_end_name(LinkEnd reason);

}  // namespace reef
