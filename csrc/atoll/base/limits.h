// Every bound of the data plane, in one place. docs/wire.md repeats the table.
#pragma once

#include <cstddef>
#include <cstdint>

#include "atoll/base/time.h"

namespace reef::limits {

inline constexpr std::size_t kMaxPayload = 4u << 20;
// A member that has not reached an op buffers at most this much of it from each peer.
inline constexpr std::size_t kEagerBytes = 256u << 10;
inline constexpr std::size_t kMaxEarlyBytesPerPeer = 64u << 20;
inline constexpr std::size_t kMaxEarlyFramesPerPeer = 16'384;
inline constexpr std::uint32_t kMaxConnectionsPerLink = 16;
inline constexpr std::size_t kMaxPendingHandshakes = 64;
inline constexpr Nanos kHandshakeTimeout = 5 * kSecond;
// Shared state asked of one donor, and the longest part of a buffer that one request may name.
inline constexpr std::size_t kMaxStateRequestsPerPeer = 64;
inline constexpr std::uint64_t kMaxStateRequestBytes = std::uint64_t{1} << 30;
inline constexpr std::uint32_t kMaxChannels = 4'096;
inline constexpr std::uint32_t kMaxMembers = 4'096;
inline constexpr std::uint64_t kMaxVectorBytes = std::uint64_t{1} << 40;
// Small enough to pipeline a 1 MiB vector over a few members, large enough that a
// header and a system call per chunk cost under 1 %.
inline constexpr std::uint32_t kDefaultChunkBytes = 256u << 10;

}  // namespace reef::limits
