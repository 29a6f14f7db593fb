#include "atoll/collective/plans/fold.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace reef {

Fold::Fold(Operand& operand, const Weights* weights, std::vector<Rank> order, Rank self,
           std::size_t chunks)
    : operand_(operand),
      weights_(weights),
      order_(std::move(order)),
      self_(self),
      turns_(chunks, 0),
      states_(chunks, State::empty) {}

std::size_t Fold::turn_of(Rank from) const {
  return static_cast<std::size_t>(std::find(order_.begin(), order_.end(), from) - order_.begin());
}

bool Fold::expects(std::size_t number, Rank from) const {
  const std::size_t turn = turn_of(from);
  if (turn == order_.size() || from == self_ || turn < turns_[number]) return false;
  const auto at = kept_.find(key(number, turn));
  return at == kept_.end() || !at->second.whole;
}

std::span<std::byte> Fold::place(std::size_t number, Rank from, std::size_t bytes) {
  const std::size_t turn = turn_of(from);
  if (turn == turns_[number] && states_[number] != State::held) return {};
  return {keep(key(number, turn), bytes).bytes.get(), bytes};
}

bool Fold::deliver(std::size_t number, const Cell& cell, Rank from,
                   std::span<const std::byte> payload) {
  const std::size_t turn = turn_of(from);
  const auto at = kept_.find(key(number, turn));
  if (turn != turns_[number] || states_[number] == State::held) {
    Kept& kept = at != kept_.end() ? at->second : keep(key(number, turn), payload.size());
    if (payload.data() != kept.bytes.get()) {
      std::memcpy(kept.bytes.get(), payload.data(), payload.size());
    }
    kept.whole = true;
    return false;
  }
  take(number, cell, payload);
  if (at != kept_.end()) {  // received into what was kept for it, before its turn came
    recycle(at->second);
    kept_.erase(at);
  }
  return advance(number, cell);
}

bool Fold::advance(std::size_t number, const Cell& cell) {
  while (turns_[number] < order_.size()) {
    const Rank turn = turns_[number];
    const Rank from = order_[turn];
    if (from == self_) {
      ++turns_[number];
      if (operand_.absent()) continue;
      if (states_[number] == State::empty) {
        states_[number] = State::own;
      } else {
        operand_.add_own(cell.sum, cell.offset);
      }
      continue;
    }
    if (weights_ != nullptr && weights_->absent(from)) {
      ++turns_[number];
      continue;
    }
    if (kept_.empty()) return false;
    const auto at = kept_.find(key(number, turn));
    if (at == kept_.end() || !at->second.whole) return false;
    take(number, cell, {at->second.bytes.get(), at->second.size});
    recycle(at->second);
    kept_.erase(at);
  }
  if (states_[number] == State::own) {
    operand_.put_own(cell.sum, cell.offset);
  } else if (states_[number] == State::empty) {
    operand_.put_identity(cell.sum);
  }
  states_[number] = State::summed;
  return true;
}

// Adds the contribution whose turn it is.
void Fold::take(std::size_t number, const Cell& cell, std::span<const std::byte> payload) {
  ++turns_[number];
  switch (std::exchange(states_[number], State::summed)) {
    case State::held:
    case State::empty: return operand_.put(cell.sum, payload);
    case State::own: return operand_.put_own_and(cell.sum, cell.offset, payload);
    case State::summed: return operand_.add(cell.sum, payload);
  }
}

Fold::Kept& Fold::keep(std::uint64_t key, std::size_t bytes) {
  const auto [at, added] = kept_.try_emplace(key);
  if (added) {
    for (std::size_t i = spare_.size(); i-- > 0 && !at->second.bytes;) {
      if (spare_[i].size != bytes) continue;
      at->second.bytes = std::move(spare_[i].bytes);
      spare_.erase(spare_.begin() + static_cast<std::ptrdiff_t>(i));
    }
    if (!at->second.bytes) at->second.bytes = std::make_unique_for_overwrite<std::byte[]>(bytes);
    at->second.size = bytes;
  }
  return at->second;
}

void Fold::recycle(Kept& kept) {
  constexpr std::size_t kSpare = 16;
  if (spare_.size() < kSpare) spare_.push_back(std::move(kept));
}

}  // namespace reef
