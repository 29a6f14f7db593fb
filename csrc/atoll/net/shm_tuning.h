// The sizes on which the speed of shared-memory links depends. docs/performance.md says how they
// were found. None of them is part of the format: two peers may have different ones.
#pragma once

#include <cstddef>

namespace reef::shm {

// Of each direction. Half as much costs twice the wake-ups, twice as much saves none that matter
// and is too much for a processor's caches when a host has several links.
inline constexpr std::size_t kRingBytes = 2u << 20;
// Frames begin, and payloads therefore lie, at multiples of this: numbers of any type can be read.
inline constexpr std::size_t kAlignment = 16;
// Copied at once.
inline constexpr std::size_t kSliceBytes = 64u << 10;
// A writer that has more to write than this waits until it can write so much.
inline constexpr std::size_t kLeastWrite = 4u << 10;
// Written before the reader is told, unless nothing follows: a chunk of an op. A reader that was
// told of less would only find that the rest is missing.
inline constexpr std::size_t kPublishBytes = 256u << 10;
// Read before the writer is told, unless nothing follows.
inline constexpr std::size_t kReleaseBytes = 128u << 10;
// A reader that waits for the rest of a payload sleeps until so much of it is there.
inline constexpr std::size_t kWakeBytes = 256u << 10;
// Read and written per turn, before other connections get theirs.
inline constexpr std::size_t kReceiveBudget = 2u << 20;
inline constexpr std::size_t kSendBudget = 2u << 20;

}  // namespace reef::shm
