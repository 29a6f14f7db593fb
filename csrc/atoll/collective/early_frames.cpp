#include "atoll/collective/early_frames.h"

#include <utility>

#include "atoll/base/limits.h"

namespace reef {

namespace {

// An exchange that never begins here leaves its partner's last word behind. So many are remembered.
constexpr std::size_t kGivenUpPerPeer = 256;

bool fails(const FrameHeader& header) {
  return header.type == FrameType::done && header.phase != 0;
}

}  // namespace

Status EarlyFrames::keep(const PeerId& from, const FrameHeader& header,
                         std::span<const std::byte> payload) {
  Shelf& shelf = shelves_[from];
  const Key key{header.epoch, header.channel, header.sequence};
  if ((header.channel & kExchangeBit) != 0) {
    const auto known = shelf.ops.find(key);
    if (known != shelf.ops.end()) {
      if (fails(known->second.front().header)) return Unit{};
      if (fails(header)) remove(shelf, known);
    }
  }
  if (shelf.frames >= limits::kMaxEarlyFramesPerPeer ||
      payload.size() > limits::kMaxEarlyBytesPerPeer - shelf.bytes) {
    return Error{Code::protocol, 0,
                 "peer " + from.shorthand() + " sent more ahead of its time than it may"};
  }
  shelf.ops[key].push_back({header, {payload.begin(), payload.end()}});
  shelf.bytes += payload.size();
  ++shelf.frames;
  ++frames_;
  if ((header.channel & kExchangeBit) != 0 && fails(header)) give_up(shelf, key);
  return Unit{};
}

std::vector<EarlyFrames::Frame> EarlyFrames::take(const PeerId& from, const Key& key) {
  std::vector<Frame> frames;
  if (frames_ == 0) return frames;
  const auto shelf = shelves_.find(from);
  if (shelf == shelves_.end()) return frames;
  const auto at = shelf->second.ops.find(key);
  if (at == shelf->second.ops.end()) return frames;
  for (const Frame& frame : at->second) shelf->second.bytes -= frame.payload.size();
  shelf->second.frames -= at->second.size();
  frames_ -= at->second.size();
  frames = std::move(at->second);
  shelf->second.ops.erase(at);
  return frames;
}

std::vector<EarlyFrames::Key> EarlyFrames::started(const PeerId& from, Epoch epoch,
                                                   Channel channel) const {
  std::vector<Key> keys;
  const auto shelf = shelves_.find(from);
  if (shelf == shelves_.end()) return keys;
  for (auto at = shelf->second.ops.lower_bound({epoch, channel, 0});
       at != shelf->second.ops.end() && at->first.epoch == epoch && at->first.channel == channel;
       ++at) {
    if (at->second.front().header.type == FrameType::start) keys.push_back(at->first);
  }
  return keys;
}

void EarlyFrames::drop(const PeerId& from) {
  const auto shelf = shelves_.find(from);
  if (shelf == shelves_.end()) return;
  frames_ -= shelf->second.frames;
  shelves_.erase(shelf);
}

std::uint64_t EarlyFrames::drop_before(Epoch epoch) {
  const std::size_t before = frames_;
  for (auto shelf = shelves_.begin(); shelf != shelves_.end();) {
    auto& ops = shelf->second.ops;
    while (!ops.empty() && ops.begin()->first.epoch < epoch) remove(shelf->second, ops.begin());
    std::erase_if(shelf->second.given_up, [&](const Key& key) { return key.epoch < epoch; });
    shelf = ops.empty() ? shelves_.erase(shelf) : std::next(shelf);
  }
  return before - frames_;
}

void EarlyFrames::remove(Shelf& shelf, std::map<Key, std::vector<Frame>>::iterator at) {
  for (const Frame& frame : at->second) shelf.bytes -= frame.payload.size();
  shelf.frames -= at->second.size();
  frames_ -= at->second.size();
  shelf.ops.erase(at);
}

void EarlyFrames::give_up(Shelf& shelf, const Key& key) {
  shelf.given_up.push_back(key);
  if (shelf.given_up.size() <= kGivenUpPerPeer) return;
  const auto oldest = shelf.ops.find(shelf.given_up.front());
  if (oldest != shelf.ops.end()) remove(shelf, oldest);
  shelf.given_up.pop_front();
}

}  // namespace reef
