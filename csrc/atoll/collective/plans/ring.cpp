// The ring all-reduce. N segments, members in the order of the ring; the one at place r sends its own
// segment r to r+1 with phase 0. Who receives phase k <= N-2 adds its own numbers to the payload and
// sends the sum on with phase k+1; after phase N-2 a segment is whole, and phases N-1 .. 2N-3 carry
// it around. Place r thus receives, with phase k, segment r-1-k (mod N). Chunks flow one by one:
// nothing waits for a whole segment.
//
// A segment's sum is ((x_s + x_s+1) + x_s+2) + ... in ring order from its first owner s: fixed by
// the view. With a codec each hop of the first half quantizes anew; the second half passes on the
// bytes that the segment's last adder has encoded.

#include <map>
#include <utility>
#include <vector>

#include "atoll/collective/plans/grid.h"
#include "atoll/collective/plans/operand.h"

namespace reef {

namespace {

class Ring final : public PlanRun {
 public:
  explicit Ring(const PlanSetup& setup)
      : setup_(setup),
        grid_(equal_parts(setup.in.size() / dtype_bytes(setup.dtype), setup.members,
                          granule_of(setup.codec.id)),
              dtype_bytes(setup.dtype), setup.chunk_bytes, setup.codec.id),
        operand_(setup) {
    const Rank members = setup.members;
    while (setup.order[place_] != setup.self) ++place_;
    next_ = setup.order[(place_ + 1) % members];
    previous_ = setup.order[(place_ + members - 1) % members];
    stages_.resize(grid_.slots(), Stage::nothing);
    for (Rank segment = 0; segment < members && members > 1; ++segment) {
      if (segment != place_) awaited_ += grid_.chunks(segment);
      if (segment != (place_ + 1) % members) awaited_ += grid_.chunks(segment);
    }
  }

  void begin(Outbox& outbox) override {
    if (setup_.members == 1) {
      if (operand_.absent()) {
        operand_.put_identity(setup_.out);
      } else {
        operand_.put_own(setup_.out, 0);
        operand_.finish(setup_.out, *setup_.weights);
      }
      return;
    }
    for (std::size_t chunk = 0; chunk < grid_.chunks(place_); ++chunk) {
      const Grid::Range range = grid_.range(place_, chunk);
      outbox.send(next_, 0, range.offset, grid_.wire_bytes(range.length));
    }
  }

  Payload payload(Rank, std::uint16_t phase, std::uint64_t offset) override {
    const Rank segment = segment_of(phase, place_);
    const Grid::Range range = grid_.range(segment, grid_.number_at(segment, offset));
    if (phase == 0) return operand_.own_payload(offset, range.length);
    const std::span<std::byte> sum = setup_.out.subspan(range.offset, range.length);
    if (!operand_.coded()) return {sum, nullptr};
    if (phase <= last_add() ) return operand_.sum_payload(sum, offset, 2 + phase);
    const auto at = encoded_.find(offset);
    Payload whole = std::move(at->second);
    encoded_.erase(at);
    return whole;
  }

  std::span<std::byte> place(const ChunkName& chunk) override {
    if (!locate(chunk) || adds(chunk.phase) || operand_.coded()) return {};
    return setup_.out.subspan(chunk.offset, chunk.length);
  }

  bool deliver(const ChunkName& chunk, std::span<const std::byte> payload,
               Outbox& outbox) override {
    const std::optional<Rank> segment = locate(chunk);
    if (!segment) return false;
    const std::size_t number = grid_.number_at(*segment, chunk.offset);
    const Grid::Range range = grid_.range(*segment, number);
    const std::span<std::byte> sum = setup_.out.subspan(range.offset, range.length);
    if (adds(chunk.phase)) {
      operand_.put_own_and(sum, range.offset, payload);
      stages_[grid_.slot(*segment, number)] = Stage::added;
      if (chunk.phase == last_add()) {
        last_added_.push_back(range);
        seal_waiting(outbox);
        --awaited_;
        return true;
      }
    } else {
      operand_.put(sum, payload);
      stages_[grid_.slot(*segment, number)] = Stage::whole;
      if (operand_.coded() && chunk.phase < last_phase()) keep(chunk.offset, payload);
    }
    --awaited_;
    if (chunk.phase < last_phase()) {
      outbox.send(next_, static_cast<std::uint16_t>(chunk.phase + 1), chunk.offset,
                  grid_.wire_bytes(range.length));
    }
    return true;
  }

  void heard(Rank, Outbox& outbox) override { seal_waiting(outbox); }

  [[nodiscard]] bool complete() const override { return awaited_ == 0 && last_added_.empty(); }
  [[nodiscard]] EncodeReport report() const override { return operand_.report(); }

 private:
  enum class Stage : std::uint8_t { nothing, added, whole };

  [[nodiscard]] std::uint32_t last_phase() const { return 2 * setup_.members - 3; }
  [[nodiscard]] std::uint32_t last_add() const { return setup_.members - 2; }
  [[nodiscard]] bool adds(std::uint16_t phase) const { return phase <= last_add(); }
  // The segment that the member at this place sends with this phase.
  [[nodiscard]] Rank segment_of(std::uint16_t phase, Rank sender) const {
    return (sender + 2 * setup_.members - phase) % setup_.members;
  }

  // The segment of a chunk that is due now. A whole segment comes to a member other than its first
  // owner only after that member has added to it, so nothing overwrites a sum that is still needed.
  [[nodiscard]] std::optional<Rank> locate(const ChunkName& chunk) const {
    if (setup_.members == 1 || chunk.from != previous_ || chunk.phase > last_phase()) {
      return std::nullopt;
    }
    const Rank segment =
        segment_of(chunk.phase, (place_ + setup_.members - 1) % setup_.members);
    const std::optional<std::size_t> number = grid_.find(segment, chunk);
    if (!number) return std::nullopt;
    const bool first = adds(chunk.phase) || segment == place_;
    const Stage due = first ? Stage::nothing : Stage::added;
    if (stages_[grid_.slot(segment, *number)] != due) return std::nullopt;
    return segment;
  }

  // Sums to which this member was the last to add set out as results; an average needs all weights.
  void seal_waiting(Outbox& outbox) {
    if (operand_.needs_all_weights() && !setup_.weights->all_known()) return;
    for (const Grid::Range& range : last_added_) {
      const std::span<std::byte> sum = setup_.out.subspan(range.offset, range.length);
      operand_.finish(sum, *setup_.weights);
      if (operand_.coded()) encoded_[range.offset] = operand_.seal(sum, range.offset);
      outbox.send(next_, static_cast<std::uint16_t>(last_add() + 1), range.offset,
                  grid_.wire_bytes(range.length));
    }
    last_added_.clear();
  }

  // To be passed on as it came.
  void keep(std::uint64_t offset, std::span<const std::byte> payload) {
    auto copy = std::make_shared<std::vector<std::byte>>(payload.begin(), payload.end());
    encoded_[offset] = {*copy, copy};
  }

  PlanSetup setup_;
  Grid grid_;
  Operand operand_;
  Rank place_ = 0;  // in the ring
  Rank next_ = 0;
  Rank previous_ = 0;
  std::vector<Stage> stages_;
  std::size_t awaited_ = 0;
  std::vector<Grid::Range> last_added_;
  std::map<std::uint64_t, Payload> encoded_;  // whole chunks to pass on, by offset
};

}  // namespace

std::unique_ptr<PlanRun> make_ring(const PlanSetup& setup) { return std::make_unique<Ring>(setup); }

}  // namespace reef
