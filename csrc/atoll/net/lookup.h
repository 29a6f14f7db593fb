// Host names, resolved off the reactor's thread. Any thread.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "atoll/base/result.h"
#include "atoll/net/socket.h"

namespace reef {

using LookUpDone = std::function<void(Result<std::vector<Address>>)>;

// Resolves on a thread of its own, and calls `done` on that thread. The thread is detached, because
// getaddrinfo may take many seconds and cannot be interrupted: `done` must own all that it touches.
void look_up_detached(std::string host, std::uint16_t port, LookUpDone done);

}  // namespace reef
