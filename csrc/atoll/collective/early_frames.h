// Frames that came before their time: for an op that has not started here, or a view that is not
// installed here. Copies, bounded for each peer.
//
// Thread: the core's. Ownership: holds copies. Failure: keep() refuses (protocol) beyond the
// bounds; a peer that stays within its eager allowance never gets there.
#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <span>
#include <unordered_map>
#include <vector>

#include "atoll/base/ids.h"
#include "atoll/base/result.h"
#include "atoll/wire/frame.h"

namespace reef {

// On the wire the highest bit of `channel` tells exchanges from the channel's ops.
inline constexpr Channel kExchangeBit = Channel{1} << 31;
// A send moreover has one of these, by whether it goes to a higher or to a lower rank.
inline constexpr Channel kSendUpBit = Channel{1} << 30;
inline constexpr Channel kSendDownBit = Channel{1} << 29;
inline constexpr Channel kPairBits = kExchangeBit | kSendUpBit | kSendDownBit;

class EarlyFrames {
 public:
  struct Key {
    Epoch epoch = 0;
    Channel channel = 0;  // as on the wire
    Sequence sequence = 0;
    auto operator<=>(const Key&) const = default;
  };
  struct Frame {
    FrameHeader header;
    std::vector<std::byte> payload;
  };

  Status keep(const PeerId& from, const FrameHeader& header, std::span<const std::byte> payload);
  // The frames of one op from one peer in the order of their arrival, no longer kept.
  [[nodiscard]] std::vector<Frame> take(const PeerId& from, const Key& key);
  // What one peer has begun, of these: for each op, its key.
  [[nodiscard]] std::vector<Key> started(const PeerId& from, Epoch epoch, Channel channel) const;
  void drop(const PeerId& from);
  // Forgets the epochs before `epoch`; returns the number of frames.
  std::uint64_t drop_before(Epoch epoch);
  [[nodiscard]] bool empty() const { return frames_ == 0; }

 private:
  struct Shelf {  // of one peer
    std::map<Key, std::vector<Frame>> ops;
    std::size_t bytes = 0;
    std::size_t frames = 0;
    std::deque<Key> given_up;  // exchanges that the partner has failed before they began here
  };
  void remove(Shelf& shelf, std::map<Key, std::vector<Frame>>::iterator at);
  void give_up(Shelf& shelf, const Key& key);

  std::unordered_map<PeerId, Shelf> shelves_;
  std::size_t frames_ = 0;
};

}  // namespace reef
