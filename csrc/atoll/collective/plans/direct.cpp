// The direct all-reduce. Each member owns one part of the vector: all send their chunks of it to
// the owner (phase 0), the owner adds them up and sends the sums to all (phase 1). Two steps,
// whatever the number of members. A reduce-scatter is its first step alone.
//
// Owner o adds in the order x_o, x_o-1, x_o-2, ... (mod N): its own numbers are at hand, and member
// s sends its chunks to s+1 first, so this is about the order in which they come. With a codec a
// number is quantized once on the way to its owner and once on the way from it.

#include <utility>
#include <vector>

#include "atoll/collective/plans/fold.h"
#include "atoll/collective/plans/grid.h"
#include "atoll/collective/plans/operand.h"

namespace reef {

namespace {

std::vector<Rank> backwards_from(Rank self, Rank members) {
  std::vector<Rank> order(members);
  for (Rank k = 0; k < members; ++k) order[k] = (self + members - k) % members;
  return order;
}

class Direct final : public PlanRun {
 public:
  Direct(const PlanSetup& setup, bool scatter)
      : setup_(setup),
        scatter_(scatter),
        grid_(setup.bounds, dtype_bytes(setup.dtype), setup.chunk_bytes, setup.codec.id),
        operand_(setup),
        fold_(operand_, setup.weights, backwards_from(setup.self, setup.members), setup.self,
              grid_.chunks(setup.self)),
        finished_(grid_.chunks(setup.self), 0) {
    received_.resize(scatter ? 0 : grid_.slots(), 0);
    if (operand_.coded() && !scatter) results_.resize(grid_.chunks(setup.self));
    awaited_ = grid_.chunks(setup.self);
    for (Rank part = 0; part < setup.members && !scatter; ++part) {
      if (part != setup.self) awaited_ += grid_.chunks(part);
    }
  }

  void begin(Outbox& outbox) override {
    // Chunk by chunk over the owners, beginning after oneself: all owners can add at once.
    for (std::size_t chunk = 0; chunk < grid_.stride() && !operand_.absent(); ++chunk) {
      for (Rank step = 1; step < setup_.members; ++step) {
        const Rank owner = (setup_.self + step) % setup_.members;
        if (chunk >= grid_.chunks(owner)) continue;
        const Grid::Range range = grid_.range(owner, chunk);
        outbox.send(owner, 0, range.offset, grid_.wire_bytes(range.length));
      }
    }
    for (std::size_t number = 0; number < grid_.chunks(setup_.self); ++number) {
      if (fold_.begin(number, cell(number))) finish(number, outbox);
    }
  }

  Payload payload(Rank to, std::uint16_t phase, std::uint64_t offset) override {
    if (phase == 0) {
      const std::size_t number = grid_.number_at(to, offset);
      return operand_.own_payload(offset, grid_.range(to, number).length);
    }
    const std::size_t number = grid_.number_at(setup_.self, offset);
    if (!operand_.coded()) return {cell(number).sum, nullptr};
    Result& result = results_[number];
    return --result.unsent == 0 ? std::move(result.payload) : result.payload;
  }

  std::span<std::byte> place(const ChunkName& chunk) override {
    const std::optional<std::size_t> number = locate(chunk);
    if (!number) return {};
    if (chunk.phase == 0) return fold_.place(*number, chunk.from, chunk.length);
    if (operand_.coded()) return {};
    return setup_.out.subspan(chunk.offset, chunk.length);
  }

  bool deliver(const ChunkName& chunk, std::span<const std::byte> payload,
               Outbox& outbox) override {
    const std::optional<std::size_t> number = locate(chunk);
    if (!number) return false;
    if (chunk.phase == 0) {
      if (fold_.deliver(*number, cell(*number), chunk.from, payload)) finish(*number, outbox);
      return true;
    }
    const Grid::Range range = grid_.range(chunk.from, *number);
    operand_.put(setup_.out.subspan(range.offset, range.length), payload);
    received_[grid_.slot(chunk.from, *number)] = 1;
    --awaited_;
    return true;
  }

  void heard(Rank from, Outbox& outbox) override {
    const bool absent = setup_.weights->absent(from);
    const bool last = operand_.needs_all_weights() && setup_.weights->all_known();
    if (!absent && !last) return;
    for (std::size_t number = 0; number < grid_.chunks(setup_.self); ++number) {
      if (finished_[number] != 0) continue;
      if (fold_.done(number) || (absent && fold_.advance(number, cell(number)))) {
        finish(number, outbox);
      }
    }
  }

  [[nodiscard]] bool complete() const override { return awaited_ == 0; }
  [[nodiscard]] EncodeReport report() const override { return operand_.report(); }

 private:
  struct Result {
    Payload payload;
    Rank unsent = 0;
  };

  // A chunk of the own part, in the output.
  [[nodiscard]] Fold::Cell cell(std::size_t number) const {
    const Grid::Range range = grid_.range(setup_.self, number);
    const std::uint64_t at = scatter_ ? range.offset - grid_.begin(setup_.self) : range.offset;
    return {setup_.out.subspan(at, range.length), range.offset};
  }

  // The number, in its part, of a chunk that is still to come.
  [[nodiscard]] std::optional<std::size_t> locate(const ChunkName& chunk) const {
    if (chunk.from == setup_.self || chunk.from >= setup_.members || chunk.phase > 1) {
      return std::nullopt;
    }
    if (chunk.phase == 1 && scatter_) return std::nullopt;
    const Rank part = chunk.phase == 0 ? setup_.self : chunk.from;
    const std::optional<std::size_t> number = grid_.find(part, chunk);
    if (!number) return std::nullopt;
    const bool repeated = chunk.phase == 0 ? !fold_.expects(*number, chunk.from)
                                           : received_[grid_.slot(part, *number)] != 0;
    if (repeated) return std::nullopt;
    return number;
  }

  // All contributions are in.
  void finish(std::size_t number, Outbox& outbox) {
    if (operand_.needs_all_weights() && !setup_.weights->all_known()) return;  // heard() comes back
    const Fold::Cell at = cell(number);
    operand_.finish(at.sum, *setup_.weights);
    finished_[number] = 1;
    --awaited_;
    if (scatter_ || setup_.members == 1) return;
    if (operand_.coded()) {
      results_[number] = {operand_.seal(at.sum, at.offset), setup_.members - 1};
    }
    for (Rank step = 1; step < setup_.members; ++step) {
      outbox.send((setup_.self + step) % setup_.members, 1, at.offset,
                  grid_.wire_bytes(at.sum.size()));
    }
  }

  PlanSetup setup_;
  bool scatter_;
  Grid grid_;
  Operand operand_;
  Fold fold_;
  std::vector<std::uint8_t> finished_;  // by chunk of the own part
  std::vector<Result> results_;         // encoded, until sent to all
  std::vector<std::uint8_t> received_;  // by slot: the sum has come from its owner
  std::size_t awaited_ = 0;             // chunks that are not whole here
};

}  // namespace

std::unique_ptr<PlanRun> make_direct(const PlanSetup& setup) {
  return std::make_unique<Direct>(setup, false);
}

std::unique_ptr<PlanRun> make_reduce_scatter(const PlanSetup& setup) {
  return std::make_unique<Direct>(setup, true);
}

}  // namespace reef
