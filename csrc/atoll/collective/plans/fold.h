// Adds the members' contributions to a run of chunks in a fixed order, whatever the order in which
// they come: what comes before its turn is kept. The order makes a result depend on the view and
// the inputs alone.
//
// Thread: the core's. Ownership: the sums lie in the op's output; keeps copies of what came early.
// Failure: find out with expects() first; what is not expected is refused.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "atoll/collective/plans/operand.h"
#include "atoll/collective/plans/plan.h"

namespace reef {

class Fold {
 public:
  struct Cell {  // one chunk's place
    std::span<std::byte> sum;
    std::uint64_t offset = 0;  // in the vector
  };

  // `order`: whose contribution comes when, this member's own among them or not. `chunks` of them,
  // each with contributions of `wire_bytes` at most.
  Fold(Operand& operand, const Weights* weights, std::vector<Rank> order, Rank self,
       std::size_t chunks);

  // Own contributions and known absences that stand first. True: the chunk is complete already.
  bool begin(std::size_t number, const Cell& cell) { return advance(number, cell); }
  // A fold that adds to sums which are still in the making: all contributions are kept until
  // begin_on() says that the chunk's is there.
  void hold() { states_.assign(states_.size(), State::held); }
  bool begin_on(std::size_t number, const Cell& cell) {
    states_[number] = State::summed;
    return advance(number, cell);
  }
  [[nodiscard]] bool expects(std::size_t number, Rank from) const;
  // Where to receive a contribution before its turn; empty when it is its turn.
  [[nodiscard]] std::span<std::byte> place(std::size_t number, Rank from, std::size_t bytes);
  // An expected contribution. True: the chunk's sum is complete.
  bool deliver(std::size_t number, const Cell& cell, Rank from,
               std::span<const std::byte> payload);
  // Somebody's weight is known now: perhaps he contributes nothing. True: as deliver().
  bool advance(std::size_t number, const Cell& cell);
  [[nodiscard]] bool done(std::size_t number) const { return turns_[number] == order_.size(); }

 private:
  struct Kept {
    std::unique_ptr<std::byte[]> bytes;
    std::size_t size = 0;
    bool whole = false;
  };
  enum class State : std::uint8_t {
    held,   // the sum to add to is not there yet
    empty,  // nothing is in the sum
    own,    // this member's own numbers stand first, and are not copied yet
    summed,
  };
  void take(std::size_t number, const Cell& cell, std::span<const std::byte> payload);
  [[nodiscard]] std::size_t turn_of(Rank from) const;
  [[nodiscard]] std::uint64_t key(std::size_t number, std::size_t turn) const {
    return number * order_.size() + turn;
  }
  Kept& keep(std::uint64_t key, std::size_t bytes);
  void recycle(Kept& kept);

  Operand& operand_;
  const Weights* weights_;
  std::vector<Rank> order_;
  Rank self_;
  std::vector<Rank> turns_;  // by chunk: whose turn it is, an index into order_
  std::vector<State> states_;
  std::map<std::uint64_t, Kept> kept_;
  std::vector<Kept> spare_;
};

}  // namespace reef
