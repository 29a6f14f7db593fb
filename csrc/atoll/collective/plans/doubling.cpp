// The doubling all-reduce, for small vectors and many members: in step s members whose ranks differ
// in bit s swap what they have and add it up, so that log2 N exchanges of the whole vector suffice.
// With N no power of two, M = 2^floor(log2 N): rank r >= M first gives its numbers to r - M (phase
// 0) and gets the result from it in the end; the steps among the first M have phases 1 .. log2 M.
//
// Both of a pair add lower + upper, so all end with the same bits: the sum over a binary tree of
// ranks. What is sent is copied first, because the sum goes on meanwhile; vectors are small.

#include <bit>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "atoll/collective/plans/grid.h"
#include "atoll/collective/plans/operand.h"

namespace reef {

namespace {

class Doubling final : public PlanRun {
 public:
  explicit Doubling(const PlanSetup& setup)
      : setup_(setup),
        grid_({0, setup.in.size() / dtype_bytes(setup.dtype)}, dtype_bytes(setup.dtype),
              setup.chunk_bytes),
        operand_(setup),
        core_(std::bit_floor(setup.members)),
        steps_(static_cast<std::uint16_t>(std::countr_zero(core_))),
        extra_(setup.self >= core_),
        chunks_(grid_.chunks(0)),
        awaited_(grid_.chunks(0)) {}

  void begin(Outbox& outbox) override {
    for (std::size_t number = 0; number < chunks_.size(); ++number) {
      operand_.put_own(sum(number), grid_.range(0, number).offset);
      if (extra_) {
        send(setup_.self - core_, 0, number, outbox);
      } else if (!folds()) {
        chunks_[number].phase = 1;
        swap(number, outbox);
      }
      advance(number, outbox);
    }
  }

  Payload payload(Rank to, std::uint16_t phase, std::uint64_t offset) override {
    const auto at = copies_.find({offset, phase, to});
    Payload payload = std::move(at->second);
    copies_.erase(at);
    return payload;
  }

  std::span<std::byte> place(const ChunkName& chunk) override {
    const std::optional<std::size_t> number = locate(chunk);
    if (!number) return {};
    return std::span(slot(*number, chunk.phase, chunk.length));
  }

  bool deliver(const ChunkName& chunk, std::span<const std::byte> payload,
               Outbox& outbox) override {
    const std::optional<std::size_t> number = locate(chunk);
    if (!number) return false;
    settle_in(slot(*number, chunk.phase, chunk.length), payload);
    chunks_[*number].arrived |= std::uint64_t{1} << chunk.phase;
    advance(*number, outbox);
    return true;
  }

  void heard(Rank, Outbox& outbox) override {
    if (!operand_.needs_all_weights() || !setup_.weights->all_known()) return;
    for (std::size_t number = 0; number < chunks_.size(); ++number) advance(number, outbox);
  }

  [[nodiscard]] bool complete() const override { return awaited_ == 0; }

 private:
  struct Copy {
    std::uint64_t offset;
    std::uint16_t phase;
    Rank to;
    auto operator<=>(const Copy&) const = default;
  };
  struct Chunk {
    std::uint16_t phase = 0;     // the next to be absorbed
    std::uint64_t arrived = 0;   // a bit a phase
    std::map<std::uint16_t, std::vector<std::byte>> received;
    bool over = false;
  };

  // Phase of the result's way to an extra member.
  [[nodiscard]] std::uint16_t last() const { return static_cast<std::uint16_t>(steps_ + 1); }
  // This member of the first M has an extra one.
  [[nodiscard]] bool folds() const { return !extra_ && setup_.self + core_ < setup_.members; }
  [[nodiscard]] Rank partner(std::uint16_t phase) const {
    return setup_.self ^ (Rank{1} << (phase - 1));
  }
  [[nodiscard]] std::span<std::byte> sum(std::size_t number) const {
    const Grid::Range range = grid_.range(0, number);
    return setup_.out.subspan(range.offset, range.length);
  }
  std::vector<std::byte>& slot(std::size_t number, std::uint16_t phase, std::uint64_t length) {
    std::vector<std::byte>& bytes = chunks_[number].received[phase];
    bytes.resize(length);
    return bytes;
  }

  [[nodiscard]] std::optional<std::size_t> locate(const ChunkName& chunk) const {
    if (chunk.phase > last()) return std::nullopt;
    Rank sender = setup_.members;  // nobody
    if (extra_) {
      if (chunk.phase == last()) sender = setup_.self - core_;
    } else if (chunk.phase == 0) {
      if (folds()) sender = setup_.self + core_;
    } else if (chunk.phase <= steps_) {
      sender = partner(chunk.phase);
    }
    if (chunk.from != sender) return std::nullopt;
    const std::optional<std::size_t> number = grid_.find(0, chunk);
    if (!number || (chunks_[*number].arrived >> chunk.phase & 1u) != 0) return std::nullopt;
    return number;
  }

  void send(Rank to, std::uint16_t phase, std::size_t number, Outbox& outbox) {
    const std::span<const std::byte> bytes = sum(number);
    auto copy = std::make_shared<std::vector<std::byte>>(bytes.begin(), bytes.end());
    const std::uint64_t offset = grid_.range(0, number).offset;
    copies_[{offset, phase, to}] = {*copy, copy};
    outbox.send(to, phase, offset, static_cast<std::uint32_t>(bytes.size()));
  }
  // Sends what this member has to the partner of the chunk's phase, if there is one.
  void swap(std::size_t number, Outbox& outbox) {
    const std::uint16_t phase = chunks_[number].phase;
    if (phase <= steps_) send(partner(phase), phase, number, outbox);
  }

  void advance(std::size_t number, Outbox& outbox) {
    Chunk& chunk = chunks_[number];
    if (chunk.over) return;
    if (extra_) {
      if ((chunk.arrived >> last() & 1u) == 0) return;
      settle_in(sum(number), chunk.received[last()]);
      end(chunk);
      return;
    }
    while (chunk.phase <= steps_) {
      if ((chunk.arrived >> chunk.phase & 1u) == 0) return;
      const std::vector<std::byte> other = std::move(chunk.received[chunk.phase]);
      const bool lower = chunk.phase == 0 || setup_.self < partner(chunk.phase);
      const std::span<std::byte> mine = sum(number);
      if (lower) {
        operand_.join(mine, mine, other);
      } else {
        operand_.join(mine, other, mine);
      }
      ++chunk.phase;
      swap(number, outbox);
    }
    if (operand_.needs_all_weights() && !setup_.weights->all_known()) return;  // heard() comes back
    operand_.finish(sum(number), *setup_.weights);
    if (folds()) send(setup_.self + core_, last(), number, outbox);
    end(chunk);
  }
  void end(Chunk& chunk) {
    chunk.over = true;
    chunk.received.clear();
    --awaited_;
  }

  PlanSetup setup_;
  Grid grid_;
  Operand operand_;
  Rank core_;            // M
  std::uint16_t steps_;  // log2 M
  bool extra_;           // this member is none of the first M
  std::vector<Chunk> chunks_;
  std::map<Copy, Payload> copies_;  // announced, not asked for yet
  std::size_t awaited_;
};

}  // namespace

std::unique_ptr<PlanRun> make_doubling(const PlanSetup& setup) {
  return std::make_unique<Doubling>(setup);
}

}  // namespace reef
