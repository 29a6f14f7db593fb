// Every bound of the data plane, in one place. docs/wire.md repeats the table.
#pragma once

#include <cstddef>
#include <cstdint>

#include "atoll/base/time.h"

namespace reef::limits {

inline constexpr std::size_t kMaxPayload = 4u << 20;
// A member that has not reached an op buffers at most this much of it from each peer.
inline constexpr std::size_t kEagerBytes = 512u << 10;
inline constexpr std::size_t kMaxEarlyBytesPerPeer = 64u << 20;
inline constexpr std::size_t kMaxEarlyFramesPerPeer = 16'384;
inline constexpr std::uint32_t kMaxConnectionsPerLink = 16;
// They cover for each other when one is lost, and share a path that loses packets better than one.
inline constexpr std::uint32_t kUsualConnections = 2;
inline constexpr std::size_t kMaxPendingHandshakes = 64;
// Addresses under which one peer is tried.
inline constexpr std::size_t kMaxRoutes = 16;
inline constexpr Nanos kHandshakeTimeout = 5 * kSecond;
// Strangers may come often, and each may be told of.
inline constexpr Nanos kRefusedEvery = 10 * kSecond;
// What one engine carries for peers that cannot reach each other: pairs of connections, in all and
// between two peers; those that wait for the other peer; bytes read from one end and not yet sent to
// the other.
inline constexpr std::size_t kMaxCarried = 128;
inline constexpr std::size_t kMaxCarriedPerPair = 2 * kMaxConnectionsPerLink;
inline constexpr std::size_t kMaxCallsWaiting = 64;
inline constexpr std::size_t kCarriedBytes = 256u << 10;
// Calls of relays that an engine answers at a time.
inline constexpr std::size_t kMaxAnswers = 64;
// Shared state asked of one donor, and the longest part of a buffer that one request may name.
inline constexpr std::size_t kMaxStateRequestsPerPeer = 64;
inline constexpr std::uint64_t kMaxStateRequestBytes = std::uint64_t{1} << 30;
// Measuring a link: one burst of filler, and how often a peer may ask to be answered.
inline constexpr std::size_t kMaxProbePayload = 64u << 10;
inline constexpr std::uint64_t kMaxProbeBytes = 64u << 20;
inline constexpr Nanos kMaxProbeDuration = 500 * kMillisecond;
inline constexpr std::uint32_t kMaxProbesPerSecond = 64;
inline constexpr std::uint32_t kMaxChannels = 4'096;
inline constexpr std::uint32_t kMaxMembers = 4'096;
inline constexpr std::uint64_t kMaxVectorBytes = std::uint64_t{1} << 40;
// Chunks of a vector, when nobody names their size: half of a member's part between these, so that a
// vector is pipelined, and a header and a system call for each cost little. An encoded chunk is
// smaller on the wire, so more of the vector goes into one.
inline constexpr std::uint32_t kLeastChunkBytes = 64u << 10;
inline constexpr std::uint32_t kMostChunkBytes = 512u << 10;
inline constexpr std::uint32_t kMostCodedChunkBytes = 1u << 20;

}  // namespace reef::limits
