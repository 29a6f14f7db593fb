// The mesh all-reduce, for vectors so small that only the number of steps counts: everybody sends
// everything to everybody, and all add up by rank, x_0 + x_1 + x_2 + .... One step.

#include <numeric>
#include <vector>

#include "atoll/collective/plans/fold.h"
#include "atoll/collective/plans/grid.h"
#include "atoll/collective/plans/operand.h"

namespace reef {

namespace {

std::vector<Rank> by_rank(Rank members) {
  std::vector<Rank> order(members);
  std::iota(order.begin(), order.end(), Rank{0});
  return order;
}

class Mesh final : public PlanRun {
 public:
  explicit Mesh(const PlanSetup& setup)
      : setup_(setup),
        grid_({0, setup.in.size() / dtype_bytes(setup.dtype)}, dtype_bytes(setup.dtype),
              setup.chunk_bytes),
        operand_(setup),
        fold_(operand_, setup.weights, by_rank(setup.members), setup.self, grid_.chunks(0)),
        finished_(grid_.chunks(0), 0),
        awaited_(grid_.chunks(0)) {}

  void begin(Outbox& outbox) override {
    for (std::size_t chunk = 0; chunk < grid_.chunks(0) && !operand_.absent(); ++chunk) {
      const Grid::Range range = grid_.range(0, chunk);
      for (Rank step = 1; step < setup_.members; ++step) {
        outbox.send((setup_.self + step) % setup_.members, 0, range.offset,
                    static_cast<std::uint32_t>(range.length));
      }
    }
    for (std::size_t chunk = 0; chunk < grid_.chunks(0); ++chunk) {
      if (fold_.begin(chunk, cell(chunk))) finish(chunk);
    }
  }

  Payload payload(Rank, std::uint16_t, std::uint64_t offset) override {
    return operand_.own_payload(offset, grid_.range(0, grid_.number_at(0, offset)).length);
  }

  std::span<std::byte> place(const ChunkName& chunk) override {
    const std::optional<std::size_t> number = locate(chunk);
    if (!number) return {};
    return fold_.place(*number, chunk.from, chunk.length);
  }

  bool deliver(const ChunkName& chunk, std::span<const std::byte> payload, Outbox&) override {
    const std::optional<std::size_t> number = locate(chunk);
    if (!number) return false;
    if (fold_.deliver(*number, cell(*number), chunk.from, payload)) finish(*number);
    return true;
  }

  void heard(Rank from, Outbox&) override {
    const bool absent = setup_.weights->absent(from);
    for (std::size_t chunk = 0; chunk < grid_.chunks(0); ++chunk) {
      if (finished_[chunk] != 0) continue;
      if (fold_.done(chunk) || (absent && fold_.advance(chunk, cell(chunk)))) finish(chunk);
    }
  }

  [[nodiscard]] bool complete() const override { return awaited_ == 0; }

 private:
  [[nodiscard]] Fold::Cell cell(std::size_t chunk) const {
    const Grid::Range range = grid_.range(0, chunk);
    return {setup_.out.subspan(range.offset, range.length), range.offset};
  }
  [[nodiscard]] std::optional<std::size_t> locate(const ChunkName& chunk) const {
    if (chunk.phase != 0 || chunk.from >= setup_.members) return std::nullopt;
    const std::optional<std::size_t> number = grid_.find(0, chunk);
    if (!number || !fold_.expects(*number, chunk.from)) return std::nullopt;
    return number;
  }
  void finish(std::size_t chunk) {
    if (operand_.needs_all_weights() && !setup_.weights->all_known()) return;  // heard() comes back
    operand_.finish(cell(chunk).sum, *setup_.weights);
    finished_[chunk] = 1;
    --awaited_;
  }

  PlanSetup setup_;
  Grid grid_;
  Operand operand_;
  Fold fold_;
  std::vector<std::uint8_t> finished_;
  std::size_t awaited_;
};

}  // namespace

std::unique_ptr<PlanRun> make_mesh(const PlanSetup& setup) { return std::make_unique<Mesh>(setup); }

}  // namespace reef
