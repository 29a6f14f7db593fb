// For tests: both ends of a link through shared memory, as after a handshake.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include <utility>

#include "atoll/net/local_channel.h"

namespace reef::testing {

inline std::pair<LocalChannel, LocalChannel> local_channels(std::size_t capacity = 1u << 20) {
  LocalChannel a;
  LocalChannel b;
  a.dialled = true;
  a.memory = std::move(ShmMemory::create(capacity).value());
  b.memory = std::move(ShmMemory::adopt(Fd(::fcntl(a.memory.fd(), F_DUPFD_CLOEXEC, 0))).value());
  int ends[2];
  EXPECT_EQ(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends), 0);
  a.socket = Fd(ends[0]);
  b.socket = Fd(ends[1]);
  a.own_bell = Fd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  b.own_bell = Fd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  a.peer_bell = Fd(::fcntl(b.own_bell.get(), F_DUPFD_CLOEXEC, 0));
  b.peer_bell = Fd(::fcntl(a.own_bell.get(), F_DUPFD_CLOEXEC, 0));
  return {std::move(a), std::move(b)};
}

}  // namespace reef::testing
