// What two peers of one host hold in common once their handshake is through. A value with one
// owner.
#pragma once

#include "atoll/net/fd.h"
#include "atoll/net/shm_memory.h"

namespace reef {

struct LocalChannel {
  Fd socket;         // a Unix socket: says nothing any more, but its end tells that the peer is gone
  ShmMemory memory;  // created by the dialler
  Fd own_bell;       // eventfd: the peer rings it
  Fd peer_bell;      // eventfd: this side rings it
  bool dialled = false;
};

}  // namespace reef
