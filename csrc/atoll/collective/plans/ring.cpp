// The ring all-reduce. N segments; rank r sends its own segment r to r+1 with phase 0. Who receives
// phase k <= N-2 adds its own numbers to the payload and sends the sum on with phase k+1; after
// phase N-2 a segment is whole, and phases N-1 .. 2N-3 carry it around. Rank r thus receives, with
// phase k, segment r-1-k (mod N). Chunks flow one by one: nothing waits for a whole segment.
//
// A segment's sum is ((x_s + x_s+1) + x_s+2) + ... in ring order from its first owner s: fixed by
// the view.

#include <vector>

#include "atoll/collective/plans/grid.h"
#include "atoll/kernels/kernels.h"

namespace reef {

namespace {

class Ring final : public PlanRun {
 public:
  explicit Ring(const PlanSetup& setup)
      : setup_(setup),
        grid_(setup.in.size(), setup.members, setup.chunk_bytes),
        next_((setup.self + 1) % setup.members),
        previous_((setup.self + setup.members - 1) % setup.members) {
    if (setup.members == 1) return;
    stages_.resize(grid_.slots(), Stage::nothing);
    for (Rank segment = 0; segment < setup.members; ++segment) {
      if (segment != setup.self) awaited_ += grid_.chunks(segment);
      if (segment != next_) awaited_ += grid_.chunks(segment);
    }
  }

  void begin(Outbox& outbox) override {
    if (setup_.members == 1) {
      settle_in(setup_.out, setup_.in);
      return;
    }
    for (std::size_t chunk = 0; chunk < grid_.chunks(setup_.self); ++chunk) {
      const Grid::Range range = grid_.range(setup_.self, chunk);
      outbox.send(next_, 0, range.offset, setup_.in.subspan(range.offset, range.length));
    }
  }

  [[nodiscard]] std::span<std::byte> place(const ChunkName& chunk) const override {
    if (!locate(chunk) || adds(chunk.phase)) return {};
    return setup_.out.subspan(chunk.offset, chunk.length);
  }

  bool deliver(const ChunkName& chunk, std::span<const std::byte> payload,
               Outbox& outbox) override {
    const std::optional<std::size_t> slot = locate(chunk);
    if (!slot) return false;
    const std::span<std::byte> sum = setup_.out.subspan(chunk.offset, chunk.length);
    if (adds(chunk.phase)) {
      const std::span<const std::byte> own = setup_.in.subspan(chunk.offset, chunk.length);
      add(as_floats(sum), as_floats(payload, scratch_), as_floats(own, own_scratch_));
      stages_[*slot] = Stage::added;
    } else {
      settle_in(sum, payload);
      stages_[*slot] = Stage::whole;
    }
    --awaited_;
    if (chunk.phase < last_phase()) {
      outbox.send(next_, static_cast<std::uint16_t>(chunk.phase + 1), chunk.offset, sum);
    }
    return true;
  }

  [[nodiscard]] bool complete() const override { return awaited_ == 0; }

 private:
  enum class Stage : std::uint8_t { nothing, added, whole };

  [[nodiscard]] std::uint32_t last_phase() const { return 2 * setup_.members - 3; }
  [[nodiscard]] bool adds(std::uint16_t phase) const { return phase + 2u <= setup_.members; }

  // The slot of a chunk that is due now. A whole segment comes to a member other than its first
  // owner only after that member has added to it, so nothing overwrites a sum that is still needed.
  [[nodiscard]] std::optional<std::size_t> locate(const ChunkName& chunk) const {
    if (setup_.members == 1 || chunk.from != previous_ || chunk.phase > last_phase()) {
      return std::nullopt;
    }
    const Rank segment = (setup_.self + 2 * setup_.members - 1 - chunk.phase) % setup_.members;
    const std::optional<std::size_t> number = grid_.find(segment, chunk);
    if (!number) return std::nullopt;
    const std::size_t slot = grid_.slot(segment, *number);
    const bool first = adds(chunk.phase) || segment == setup_.self;
    if (stages_[slot] != (first ? Stage::nothing : Stage::added)) return std::nullopt;
    return slot;
  }

  PlanSetup setup_;
  Grid grid_;
  Rank next_;
  Rank previous_;
  std::vector<Stage> stages_;
  std::size_t awaited_ = 0;
  std::vector<float> scratch_;
  std::vector<float> own_scratch_;
};

}  // namespace

std::unique_ptr<PlanRun> make_ring(const PlanSetup& setup) {
  return std::make_unique<Ring>(setup);
}

}  // namespace reef
