// Unix sockets by which peers of one host meet, and the file descriptors that travel through them.
// Functions without state; any thread.
//
// The sockets have abstract names: they belong to a network namespace, vanish with their process,
// and keep the bounds of messages (SOCK_SEQPACKET), so that a greeting arrives whole or not at all.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "atoll/base/ids.h"
#include "atoll/base/result.h"
#include "atoll/net/fd.h"

namespace reef {

// The name under which the peer that listens on this TCP port listens here, too. The port is part
// of it, so that a dialled address is what counts: through a tunnel or a proxy one gets the
// network.
struct LocalName {
  PeerId peer;
  std::uint16_t port = 0;
};

Result<Fd> listen_locally(const LocalName& name);
// Returns at once: connected, or an error (nobody listens there; too many wait).
Result<Fd> connect_locally(const LocalName& name);
// Whether the process at the other end runs as this process's user. Of a listener: who listened.
[[nodiscard]] bool same_user(int socket);

// One message with file descriptors, which stay the caller's.
Status send_message(int socket, std::span<const std::byte> bytes, std::span<const int> fds);
struct Message {
  std::size_t bytes = 0;  // 0: nothing there yet; of a longer message: more than there is room for
  std::vector<Fd> fds;
};
// At most `most` descriptors are taken. Error: io (closed or failed).
Result<Message> receive_message(int socket, std::span<std::byte> room, std::size_t most);

}  // namespace reef
