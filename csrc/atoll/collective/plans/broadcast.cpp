// Broadcast: the root's chunks travel along the ring, each member passes them on until the next one
// would be the root. The phase counts hops: who is d places behind the root receives phase d-1.
// Swap, the plan of a pair exchange, is the same with one hop in both directions at once.

#include <vector>

#include "atoll/collective/plans/grid.h"

namespace reef {

namespace {

// Chunks that all come from one sender with one phase, straight into `out`.
class Inflow {
 public:
  Inflow(std::span<std::byte> out, std::uint32_t chunk_bytes, Rank from, std::uint16_t phase)
      : out_(out), grid_(out.size(), 1, chunk_bytes), from_(from), phase_(phase) {
    received_.resize(grid_.slots(), 0);
    awaited_ = received_.size();
  }
  [[nodiscard]] const Grid& grid() const { return grid_; }
  [[nodiscard]] bool complete() const { return awaited_ == 0; }
  [[nodiscard]] std::span<std::byte> place(const ChunkName& chunk) const {
    if (!locate(chunk)) return {};
    return out_.subspan(chunk.offset, chunk.length);
  }
  bool deliver(const ChunkName& chunk, std::span<const std::byte> payload) {
    const std::optional<std::size_t> number = locate(chunk);
    if (!number) return false;
    settle_in(out_.subspan(chunk.offset, chunk.length), payload);
    received_[*number] = 1;
    --awaited_;
    return true;
  }
  void expect_nothing() { awaited_ = 0; }

 private:
  [[nodiscard]] std::optional<std::size_t> locate(const ChunkName& chunk) const {
    if (awaited_ == 0 || chunk.from != from_ || chunk.phase != phase_) return std::nullopt;
    const std::optional<std::size_t> number = grid_.find(0, chunk);
    if (!number || received_[*number] != 0) return std::nullopt;
    return number;
  }

  std::span<std::byte> out_;
  Grid grid_;
  Rank from_;
  std::uint16_t phase_;
  std::vector<std::uint8_t> received_;
  std::size_t awaited_ = 0;
};

void send_all(const PlanSetup& setup, const Grid& grid, Rank to, Outbox& outbox) {
  for (std::size_t chunk = 0; chunk < grid.chunks(0); ++chunk) {
    const Grid::Range range = grid.range(0, chunk);
    outbox.send(to, 0, range.offset, setup.in.subspan(range.offset, range.length));
  }
}

class Broadcast final : public PlanRun {
 public:
  explicit Broadcast(const PlanSetup& setup)
      : setup_(setup),
        distance_((setup.self + setup.members - setup.other) % setup.members),
        next_((setup.self + 1) % setup.members),
        inflow_(setup.out, setup.chunk_bytes, (setup.self + setup.members - 1) % setup.members,
                static_cast<std::uint16_t>(distance_ - 1)) {}

  void begin(Outbox& outbox) override {
    if (distance_ != 0) return;
    inflow_.expect_nothing();
    if (setup_.members > 1) send_all(setup_, inflow_.grid(), next_, outbox);
    settle_in(setup_.out, setup_.in);
  }
  [[nodiscard]] std::span<std::byte> place(const ChunkName& chunk) const override {
    return inflow_.place(chunk);
  }
  bool deliver(const ChunkName& chunk, std::span<const std::byte> payload,
               Outbox& outbox) override {
    if (!inflow_.deliver(chunk, payload)) return false;
    if (next_ != setup_.other) {
      outbox.send(next_, static_cast<std::uint16_t>(distance_), chunk.offset,
                  setup_.out.subspan(chunk.offset, chunk.length));
    }
    return true;
  }
  [[nodiscard]] bool complete() const override { return inflow_.complete(); }

 private:
  PlanSetup setup_;
  Rank distance_;  // places behind the root
  Rank next_;
  Inflow inflow_;
};

class Swap final : public PlanRun {
 public:
  explicit Swap(const PlanSetup& setup)
      : setup_(setup), inflow_(setup.out, setup.chunk_bytes, setup.other, 0) {}

  void begin(Outbox& outbox) override { send_all(setup_, inflow_.grid(), setup_.other, outbox); }
  [[nodiscard]] std::span<std::byte> place(const ChunkName& chunk) const override {
    return inflow_.place(chunk);
  }
  bool deliver(const ChunkName& chunk, std::span<const std::byte> payload, Outbox&) override {
    return inflow_.deliver(chunk, payload);
  }
  [[nodiscard]] bool complete() const override { return inflow_.complete(); }

 private:
  PlanSetup setup_;
  Inflow inflow_;
};

}  // namespace

std::unique_ptr<PlanRun> make_broadcast(const PlanSetup& setup) {
  return std::make_unique<Broadcast>(setup);
}

std::unique_ptr<PlanRun> make_swap(const PlanSetup& setup) {
  return std::make_unique<Swap>(setup);
}

}  // namespace reef
