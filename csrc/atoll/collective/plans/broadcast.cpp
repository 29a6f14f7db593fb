// The broadcast: chunks run along the ring from the root, each member passing on what it receives;
// the one before the root keeps it. Phase: how many members have passed a chunk on.

#include <vector>

#include "atoll/collective/plans/grid.h"

namespace reef {

namespace {

class Broadcast final : public PlanRun {
 public:
  explicit Broadcast(const PlanSetup& setup)
      : setup_(setup), grid_({0, setup.out.size()}, 1, setup.chunk_bytes) {
    const Rank members = setup.members;
    Rank place = 0;
    Rank root = 0;
    while (setup.order[place] != setup.self) ++place;
    while (setup.order[root] != setup.other) ++root;
    distance_ = (place + members - root) % members;
    next_ = setup.order[(place + 1) % members];
    previous_ = setup.order[(place + members - 1) % members];
    if (distance_ != 0) {
      received_.resize(grid_.chunks(0), 0);
      awaited_ = received_.size();
    }
  }

  void begin(Outbox& outbox) override {
    if (distance_ != 0) return;
    for (std::size_t chunk = 0; chunk < grid_.chunks(0) && setup_.members > 1; ++chunk) {
      const Grid::Range range = grid_.range(0, chunk);
      outbox.send(next_, 0, range.offset, static_cast<std::uint32_t>(range.length));
    }
    settle_in(setup_.out, setup_.in);
  }

  Payload payload(Rank, std::uint16_t, std::uint64_t offset) override {
    const std::uint64_t length = grid_.range(0, grid_.number_at(0, offset)).length;
    if (distance_ == 0) return {setup_.in.subspan(offset, length), nullptr};
    return {setup_.out.subspan(offset, length), nullptr};
  }

  std::span<std::byte> place(const ChunkName& chunk) override {
    if (!locate(chunk)) return {};
    return setup_.out.subspan(chunk.offset, chunk.length);
  }

  bool deliver(const ChunkName& chunk, std::span<const std::byte> payload,
               Outbox& outbox) override {
    const std::optional<std::size_t> number = locate(chunk);
    if (!number) return false;
    settle_in(setup_.out.subspan(chunk.offset, chunk.length), payload);
    received_[*number] = 1;
    --awaited_;
    if (next_ != setup_.other) {
      outbox.send(next_, static_cast<std::uint16_t>(distance_), chunk.offset,
                  static_cast<std::uint32_t>(chunk.length));
    }
    return true;
  }

  [[nodiscard]] bool complete() const override { return awaited_ == 0; }

 private:
  [[nodiscard]] std::optional<std::size_t> locate(const ChunkName& chunk) const {
    if (awaited_ == 0 || chunk.from != previous_ || chunk.phase + 1u != distance_) {
      return std::nullopt;
    }
    const std::optional<std::size_t> number = grid_.find(0, chunk);
    if (!number || received_[*number] != 0) return std::nullopt;
    return number;
  }

  PlanSetup setup_;
  Grid grid_;
  Rank distance_ = 0;  // places behind the root
  Rank next_ = 0;
  Rank previous_ = 0;
  std::vector<std::uint8_t> received_;
  std::size_t awaited_ = 0;
};

}  // namespace

std::unique_ptr<PlanRun> make_broadcast(const PlanSetup& setup) {
  return std::make_unique<Broadcast>(setup);
}

}  // namespace reef
