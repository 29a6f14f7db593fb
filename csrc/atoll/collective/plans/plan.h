// A plan: which chunks one member sends, expects and adds up in one run of one op. It knows nothing
// of epochs, notices and commits; those are the run's (collective/run.h).
//
// Thread: the core's. Ownership: a plan reads `in` and writes `out` only from begin() and
// deliver(); the buffers are the op's, and outlive the plan. Failure: a chunk that the plan does
// not expect from that sender at that moment is refused and leaves no trace.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "atoll/base/ids.h"

namespace reef {

// Takes a plan's chunks. `payload` points into the op's buffers and is not copied.
class Outbox {
 public:
  virtual void send(Rank to, std::uint16_t phase, std::uint64_t offset,
                    std::span<const std::byte> payload) = 0;

 protected:
  ~Outbox() = default;
};

// A chunk as its frame names it.
struct ChunkName {
  Rank from = 0;
  std::uint16_t phase = 0;
  std::uint64_t offset = 0;  // bytes into the op's vector
  std::uint64_t length = 0;
};

class PlanRun {
 public:
  virtual ~PlanRun() = default;
  // Sends what needs nothing from others.
  virtual void begin(Outbox& outbox) = 0;
  // Where in `out` this chunk may be received. Empty: it is not expected, or must be added first.
  [[nodiscard]] virtual std::span<std::byte> place(const ChunkName& chunk) const = 0;
  // Absorbs a chunk and sends what follows from it. False: not expected.
  virtual bool deliver(const ChunkName& chunk, std::span<const std::byte> payload,
                       Outbox& outbox) = 0;
  // `out` holds the result.
  [[nodiscard]] virtual bool complete() const = 0;
};

struct PlanSetup {
  Rank self = 0;
  Rank members = 1;
  Rank other = 0;  // broadcast: the root; swap: the partner
  std::span<const std::byte> in;
  std::span<std::byte> out;
  std::uint32_t chunk_bytes = 0;  // a multiple of the element's size
};

// All-reduce of fp32, sum.
[[nodiscard]] std::unique_ptr<PlanRun> make_ring(const PlanSetup& setup);
[[nodiscard]] std::unique_ptr<PlanRun> make_direct(const PlanSetup& setup);
// Root's `in` to everybody's `out`, along the ring from the root.
[[nodiscard]] std::unique_ptr<PlanRun> make_broadcast(const PlanSetup& setup);
// Each one's `in` to the other's `out`.
[[nodiscard]] std::unique_ptr<PlanRun> make_swap(const PlanSetup& setup);

}  // namespace reef
