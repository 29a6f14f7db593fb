// A plan: which chunks one member sends, expects and adds up in one run of one op. It knows nothing
// of epochs, notices and commits; those are the run's (collective/run.h).
//
// A plan announces a chunk with Outbox::send() as soon as it may go, and makes its bytes when a link
// has room for it (payload()): nothing is encoded, scaled or copied before its time.
//
// Thread: the core's. Ownership: a plan reads `in` and writes `out` only from its own calls; the
// buffers are the op's, and outlive the plan. Memory that place() or payload() name lives at least
// as long as the plan (payload: or as `keep`). Failure: a chunk that the plan does not expect from
// that sender at that moment is refused and leaves no trace.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "atoll/base/ids.h"
#include "atoll/codec/codec.h"
#include "atoll/wire/description.h"

namespace reef {

// Takes a plan's chunks. `length` is the payload's, as it will be on the wire.
class Outbox {
 public:
  virtual void send(Rank to, std::uint16_t phase, std::uint64_t offset, std::uint32_t length) = 0;

 protected:
  ~Outbox() = default;
};

// A chunk as its frame names it.
struct ChunkName {
  Rank from = 0;
  std::uint16_t phase = 0;
  std::uint64_t offset = 0;  // bytes into the op's vector (a move: into the sender's block)
  std::uint64_t length = 0;  // of the payload
};

struct Payload {
  std::span<const std::byte> bytes;
  std::shared_ptr<const void> keep;  // set: what holds them
};

class PlanRun {
 public:
  virtual ~PlanRun() = default;
  // Announces what needs nothing from others.
  virtual void begin(Outbox& outbox) = 0;
  // The bytes of a chunk that was announced; asked for once.
  [[nodiscard]] virtual Payload payload(Rank to, std::uint16_t phase, std::uint64_t offset) = 0;
  // Where this chunk may be received. Empty: it is not expected, or must be worked on first.
  [[nodiscard]] virtual std::span<std::byte> place(const ChunkName& chunk) = 0;
  // Absorbs a chunk and announces what follows from it. False: not expected.
  virtual bool deliver(const ChunkName& chunk, std::span<const std::byte> payload,
                       Outbox& outbox) = 0;
  // Another member's START is here: its weight stands in PlanSetup::weights.
  virtual void heard(Rank /*from*/, Outbox& /*outbox*/) {}
  // The op's buffers hold the result.
  [[nodiscard]] virtual bool complete() const = 0;
  // What encoding met so far.
  [[nodiscard]] virtual EncodeReport report() const { return {}; }
};

// What each member brings: its weight, by rank. Negative: not heard yet.
class Weights {
 public:
  void begin(Rank members, Rank self, double own) {
    weights_.assign(members, -1.0);
    weights_[self] = own;
    unknown_ = members - 1;
  }
  void set(Rank from, double weight) {
    weights_[from] = weight;
    --unknown_;
  }
  [[nodiscard]] bool all_known() const { return unknown_ == 0; }
  // Known to contribute nothing.
  [[nodiscard]] bool absent(Rank rank) const { return weights_[rank] == 0; }
  [[nodiscard]] double of(Rank rank) const { return weights_[rank]; }
  [[nodiscard]] const std::vector<double>& all() const { return weights_; }
  // By rank, so that all members compute the same; all must be known.
  [[nodiscard]] double total() const {
    double sum = 0;
    for (const double weight : weights_) sum += weight;
    return sum;
  }
  [[nodiscard]] Rank contributors() const {
    Rank count = 0;
    for (const double weight : weights_) count += weight > 0 ? 1 : 0;
    return count;
  }

 private:
  std::vector<double> weights_;
  Rank unknown_ = 0;
};

struct PlanSetup {
  Rank self = 0;
  Rank members = 1;
  Rank other = 0;  // broadcast: the root; exchange, send, recv: the partner
  std::span<const std::byte> in;
  std::span<std::byte> out;
  std::uint32_t chunk_bytes = 0;  // of the vector, not of the payload; a multiple of the element's
  DType dtype = DType::f32;
  Reduction reduction = Reduction::none;
  Codec codec;
  const Weights* weights = nullptr;       // reductions
  std::vector<std::uint64_t> bounds;      // direct, reduce-scatter: the parts, in elements
  std::vector<Rank> order;                // ring, broadcast: who follows whom
  std::vector<std::uint32_t> sites;       // grouped: by rank, numbered by their lowest ranks
  std::vector<double> site_weights;       // grouped: how much a site's leaders own; empty: alike
  std::vector<std::uint64_t> counts;      // all-gather: elements by rank
};

// All-reduce.
[[nodiscard]] std::unique_ptr<PlanRun> make_ring(const PlanSetup& setup);
[[nodiscard]] std::unique_ptr<PlanRun> make_direct(const PlanSetup& setup);
[[nodiscard]] std::unique_ptr<PlanRun> make_mesh(const PlanSetup& setup);
[[nodiscard]] std::unique_ptr<PlanRun> make_doubling(const PlanSetup& setup);
[[nodiscard]] std::unique_ptr<PlanRun> make_grouped(const PlanSetup& setup);
// `in` has all elements, `out` this member's part.
[[nodiscard]] std::unique_ptr<PlanRun> make_reduce_scatter(const PlanSetup& setup);
// Root's `in` to everybody's `out`, along the ring from the root.
[[nodiscard]] std::unique_ptr<PlanRun> make_broadcast(const PlanSetup& setup);
// Everybody's `in` to everybody's `out`, one behind the other by rank.
[[nodiscard]] std::unique_ptr<PlanRun> make_all_gather(const PlanSetup& setup);
// Block j of `in` to rank j's `out`, at this member's place there.
[[nodiscard]] std::unique_ptr<PlanRun> make_all_to_all(const PlanSetup& setup);
// Each one's `in` to the other's `out`.
[[nodiscard]] std::unique_ptr<PlanRun> make_swap(const PlanSetup& setup);
[[nodiscard]] std::unique_ptr<PlanRun> make_send(const PlanSetup& setup);
[[nodiscard]] std::unique_ptr<PlanRun> make_recv(const PlanSetup& setup);

// Parts of `elements`, as equal as whole granules allow: members + 1 bounds.
[[nodiscard]] std::vector<std::uint64_t> equal_parts(std::uint64_t elements, Rank members,
                                                     std::uint64_t granule);
// Parts in proportion to `weights` (positive, by rank).
[[nodiscard]] std::vector<std::uint64_t> weighted_parts(std::uint64_t elements,
                                                        std::span<const double> weights,
                                                        std::uint64_t granule);
// Where a vector that travels with this codec may be cut.
[[nodiscard]] std::uint64_t granule_of(CodecId codec);

}  // namespace reef
