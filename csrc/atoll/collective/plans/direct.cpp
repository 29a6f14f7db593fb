// The direct all-reduce. Each member owns one part of the vector: all send their chunks of it to
// the owner (phase 0), the owner adds them up and sends the sums to all (phase 1). Two steps,
// whatever the number of members.
//
// The owner adds strictly by rank, x_0 + x_1 + x_2 + ..., so a result depends on the view and the
// inputs alone. A contribution that comes before its turn is copied and kept; rank 0's is received
// in place, and the owner's own is read from its input when its turn comes.

#include <unordered_map>
#include <utility>
#include <vector>

#include "atoll/collective/plans/grid.h"
#include "atoll/kernels/kernels.h"

namespace reef {

namespace {

class Direct final : public PlanRun {
 public:
  explicit Direct(const PlanSetup& setup)
      : setup_(setup), grid_(setup.in.size(), setup.members, setup.chunk_bytes) {
    if (setup.members == 1) return;
    // Rank 0's own numbers need no copy: they are the left operand of its first addition.
    turns_.resize(grid_.chunks(setup.self), setup.self == 0 ? 1 : 0);
    received_.resize(grid_.slots(), 0);
    for (Rank part = 0; part < setup.members; ++part) awaited_ += grid_.chunks(part);
  }

  void begin(Outbox& outbox) override {
    if (setup_.members == 1) {
      settle_in(setup_.out, setup_.in);
      return;
    }
    // Chunk by chunk over the owners, beginning after oneself: all owners can add at once.
    for (std::size_t chunk = 0; chunk < grid_.stride(); ++chunk) {
      for (Rank step = 1; step < setup_.members; ++step) {
        const Rank owner = (setup_.self + step) % setup_.members;
        if (chunk >= grid_.chunks(owner)) continue;
        const Grid::Range range = grid_.range(owner, chunk);
        outbox.send(owner, 0, range.offset, setup_.in.subspan(range.offset, range.length));
      }
    }
  }

  [[nodiscard]] std::span<std::byte> place(const ChunkName& chunk) const override {
    if (!locate(chunk)) return {};
    if (chunk.phase == 0 && chunk.from != 0) return {};
    return setup_.out.subspan(chunk.offset, chunk.length);
  }

  bool deliver(const ChunkName& chunk, std::span<const std::byte> payload,
               Outbox& outbox) override {
    const std::optional<std::size_t> number = locate(chunk);
    if (!number) return false;
    if (chunk.phase == 1) {
      settle_in(setup_.out.subspan(chunk.offset, chunk.length), payload);
      received_[grid_.slot(chunk.from, *number)] = 1;
      --awaited_;
      return true;
    }
    if (turns_[*number] != chunk.from) {
      early_.emplace(key(*number, chunk.from),
                     std::vector<std::byte>(payload.begin(), payload.end()));
      return true;
    }
    absorb(*number, payload);
    catch_up(*number);
    if (turns_[*number] == setup_.members) finish(*number, outbox);
    return true;
  }

  [[nodiscard]] bool complete() const override { return awaited_ == 0; }

 private:
  // The number, in its part, of a chunk that is still to come.
  [[nodiscard]] std::optional<std::size_t> locate(const ChunkName& chunk) const {
    if (chunk.from == setup_.self || chunk.from >= setup_.members || chunk.phase > 1) {
      return std::nullopt;
    }
    const Rank part = chunk.phase == 0 ? setup_.self : chunk.from;
    const std::optional<std::size_t> number = grid_.find(part, chunk);
    if (!number) return std::nullopt;
    const bool repeated =
        chunk.phase == 0
            ? chunk.from < turns_[*number] || early_.contains(key(*number, chunk.from))
            : received_[grid_.slot(part, *number)] != 0;
    if (repeated) return std::nullopt;
    return number;
  }

  [[nodiscard]] std::uint64_t key(std::size_t number, Rank from) const {
    return static_cast<std::uint64_t>(number) * setup_.members + from;
  }

  // Adds the contribution whose turn it is.
  void absorb(std::size_t number, std::span<const std::byte> payload) {
    const Grid::Range range = grid_.range(setup_.self, number);
    const std::span<std::byte> sum = setup_.out.subspan(range.offset, range.length);
    const Rank from = turns_[number]++;
    if (from == 0) {
      settle_in(sum, payload);
    } else if (from == 1 && setup_.self == 0) {
      const std::span<const std::byte> own = setup_.in.subspan(range.offset, range.length);
      add(as_floats(sum), as_floats(own, own_scratch_), as_floats(payload, scratch_));
    } else {
      add(as_floats(sum), as_floats(payload, scratch_));
    }
  }

  // Adds those whose turn has come by it: the owner's own, and what was kept.
  void catch_up(std::size_t number) {
    for (;;) {
      const Rank turn = turns_[number];
      if (turn == setup_.self) {
        const Grid::Range range = grid_.range(setup_.self, number);
        absorb(number, setup_.in.subspan(range.offset, range.length));
        continue;
      }
      if (early_.empty() || turn == setup_.members) return;
      const auto kept = early_.find(key(number, turn));
      if (kept == early_.end()) return;
      absorb(number, kept->second);
      early_.erase(kept);
    }
  }

  void finish(std::size_t number, Outbox& outbox) {
    const Grid::Range range = grid_.range(setup_.self, number);
    for (Rank step = 1; step < setup_.members; ++step) {
      outbox.send((setup_.self + step) % setup_.members, 1, range.offset,
                  setup_.out.subspan(range.offset, range.length));
    }
    --awaited_;
  }

  PlanSetup setup_;
  Grid grid_;
  std::vector<Rank> turns_;             // by chunk of the own part: whose turn it is to be added
  std::vector<std::uint8_t> received_;  // by slot: the sum has come from its owner
  std::unordered_map<std::uint64_t, std::vector<std::byte>> early_;
  std::size_t awaited_ = 0;  // chunks of the vector that are not whole here
  std::vector<float> scratch_;
  std::vector<float> own_scratch_;
};

}  // namespace

std::unique_ptr<PlanRun> make_direct(const PlanSetup& setup) {
  return std::make_unique<Direct>(setup);
}

}  // namespace reef
