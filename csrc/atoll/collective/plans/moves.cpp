// Ops that only move numbers: all-gather, all-to-all, pair exchange, send and recv. Each pair of
// members has a block, sent straight from one's input to the other's output in chunks; the offset
// in a chunk's name counts from the block's beginning.

#include <vector>

#include "atoll/collective/plans/grid.h"

namespace reef {

namespace {

struct Block {
  std::uint64_t offset = 0;
  std::uint64_t length = 0;
};

class Moves final : public PlanRun {
 public:
  // By rank: which part of `in` goes to whom, and where in `out` whose block belongs.
  Moves(const PlanSetup& setup, const std::vector<Block>& outgoing,
        const std::vector<Block>& incoming)
      : setup_(setup), outgoing_(outgoing) {
    incoming_.reserve(incoming.size());
    for (Rank rank = 0; rank < incoming.size(); ++rank) {
      incoming_.emplace_back(incoming[rank], setup.chunk_bytes);
      if (rank != setup.self) awaited_ += incoming_.back().received.size();
    }
  }

  void begin(Outbox& outbox) override {
    std::uint64_t longest = 0;
    for (const Block& block : outgoing_) longest = std::max(longest, block.length);
    for (std::uint64_t offset = 0; offset < longest; offset += setup_.chunk_bytes) {
      for (Rank step = 1; step < setup_.members; ++step) {
        const Rank to = (setup_.self + step) % setup_.members;
        if (offset >= outgoing_[to].length) continue;
        const std::uint64_t left = outgoing_[to].length - offset;
        outbox.send(to, 0, offset,
                    static_cast<std::uint32_t>(std::min<std::uint64_t>(left, setup_.chunk_bytes)));
      }
    }
    const Block& own = outgoing_[setup_.self];
    if (own.length != 0) {
      settle_in(setup_.out.subspan(incoming_[setup_.self].block.offset, own.length),
                setup_.in.subspan(own.offset, own.length));
    }
  }

  Payload payload(Rank to, std::uint16_t, std::uint64_t offset) override {
    const Block& block = outgoing_[to];
    const std::uint64_t length =
        std::min<std::uint64_t>(block.length - offset, setup_.chunk_bytes);
    return {setup_.in.subspan(block.offset + offset, length), nullptr};
  }

  std::span<std::byte> place(const ChunkName& chunk) override {
    const std::optional<std::size_t> number = locate(chunk);
    if (!number) return {};
    return setup_.out.subspan(incoming_[chunk.from].block.offset + chunk.offset, chunk.length);
  }

  bool deliver(const ChunkName& chunk, std::span<const std::byte> payload, Outbox&) override {
    const std::optional<std::size_t> number = locate(chunk);
    if (!number) return false;
    Incoming& from = incoming_[chunk.from];
    settle_in(setup_.out.subspan(from.block.offset + chunk.offset, chunk.length), payload);
    from.received[*number] = 1;
    --awaited_;
    return true;
  }

  [[nodiscard]] bool complete() const override { return awaited_ == 0; }

 private:
  struct Incoming {
    Incoming(const Block& its_block, std::uint32_t chunk_bytes)
        : block(its_block),
          grid({0, its_block.length}, 1, chunk_bytes),
          received(grid.chunks(0), 0) {}
    Block block;
    Grid grid;
    std::vector<std::uint8_t> received;
  };
  [[nodiscard]] std::optional<std::size_t> locate(const ChunkName& chunk) const {
    if (chunk.phase != 0 || chunk.from >= incoming_.size() || chunk.from == setup_.self) {
      return std::nullopt;
    }
    const Incoming& from = incoming_[chunk.from];
    const std::optional<std::size_t> number = from.grid.find(0, chunk);
    if (!number || from.received[*number] != 0) return std::nullopt;
    return number;
  }

  PlanSetup setup_;
  std::vector<Block> outgoing_;
  std::vector<Incoming> incoming_;
  std::size_t awaited_ = 0;
};

std::vector<Block> nothing(const PlanSetup& setup) { return std::vector<Block>(setup.members); }

}  // namespace

std::unique_ptr<PlanRun> make_all_gather(const PlanSetup& setup) {
  const std::vector<Block> outgoing(setup.members, Block{0, setup.in.size()});
  std::vector<Block> incoming;
  std::uint64_t at = 0;
  for (const std::uint64_t count : setup.counts) {
    incoming.push_back({at, count * dtype_bytes(setup.dtype)});
    at += incoming.back().length;
  }
  return std::make_unique<Moves>(setup, outgoing, incoming);
}

std::unique_ptr<PlanRun> make_all_to_all(const PlanSetup& setup) {
  std::vector<Block> blocks;
  const std::uint64_t length = setup.in.size() / setup.members;
  for (Rank rank = 0; rank < setup.members; ++rank) blocks.push_back({rank * length, length});
  return std::make_unique<Moves>(setup, blocks, blocks);
}

std::unique_ptr<PlanRun> make_swap(const PlanSetup& setup) {
  std::vector<Block> blocks = nothing(setup);
  blocks[setup.other] = {0, setup.in.size()};
  return std::make_unique<Moves>(setup, blocks, blocks);
}

std::unique_ptr<PlanRun> make_send(const PlanSetup& setup) {
  std::vector<Block> outgoing = nothing(setup);
  outgoing[setup.other] = {0, setup.in.size()};
  return std::make_unique<Moves>(setup, outgoing, nothing(setup));
}

std::unique_ptr<PlanRun> make_recv(const PlanSetup& setup) {
  std::vector<Block> incoming = nothing(setup);
  incoming[setup.other] = {0, setup.out.size()};
  return std::make_unique<Moves>(setup, nothing(setup), incoming);
}

}  // namespace reef
