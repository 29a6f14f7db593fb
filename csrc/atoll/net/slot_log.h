// What one slot of a link remembers so that its connection can be replaced without a frame being
// lost or delivered twice. Pure; the reactor thread.
//
// A link has k slots, each with one connection at a time. Both ends count, per slot, the frames that
// went over it whole, in order; heartbeats do not count, they carry the receiver's count back. What
// is not yet acknowledged is kept: by reference, never as a copy of an op's buffers. When a
// connection has died and another takes its place, each end says how many frames it has received;
// the other drops those, and sends the rest again.
//
// An op whose buffers are about to vanish is forgotten here, too. Its frames are not sent again: the
// op is over on all members or will run anew in another epoch, so nobody misses them. Counts stay
// equal, because counting goes on from what the receiver said, over the frames that are sent then.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <vector>

#include "atoll/base/ids.h"
#include "atoll/base/result.h"
#include "atoll/net/send_queue.h"

namespace reef {

class SlotLog {
 public:
  // A receiver acknowledges after so many bytes, besides its heartbeats.
  static constexpr std::uint64_t kBytesPerAck = 2u << 20;
  // What may be unacknowledged before nothing new is taken. Far beyond what the kernel's buffers
  // hold, so only a peer that does not acknowledge is stopped by it.
  static constexpr std::size_t kMostBytes = 64u << 20;
  static constexpr std::size_t kMostFrames = 65'536;

  // ---- sending ----
  // Takes the frame that must be sent again next; false when there is none.
  bool take_again(OutFrame& frame);
  [[nodiscard]] bool again() const { return !again_.empty(); }
  // No new frame may be taken.
  [[nodiscard]] bool full() const {
    return kept_bytes_ >= kMostBytes || kept_.size() >= kMostFrames;
  }
  // A frame has been written whole, in the order of the calls. Heartbeats are ignored.
  void wrote(OutFrame frame);
  // The peer has received so many frames of this slot. Error: protocol, it cannot have.
  Status acknowledged(std::uint64_t received);
  // Lets go of the op's frames and its buffers.
  void forget(OpId op);
  // The connection is gone. `unsent`: what it had taken and not written whole, in order.
  void lost(std::vector<OutFrame> unsent);
  // Another connection is here, and the peer says how many frames it has received: those after them
  // are to be sent again. Error: protocol, it cannot have received so many or so few.
  Status resume(std::uint64_t received);

  // ---- receiving ----
  void arrived(std::size_t bytes);
  [[nodiscard]] std::uint64_t received() const { return received_; }
  [[nodiscard]] bool ack_due() const { return unacknowledged_bytes_ >= kBytesPerAck; }
  // The count to send now.
  std::uint64_t acknowledge() {
    unacknowledged_bytes_ = 0;
    return received_;
  }

 private:
  void drop_first(std::uint64_t count);

  std::uint64_t dropped_ = 0;    // frames before kept_.front(): the peer has them
  std::deque<OutFrame> kept_;    // written whole, not acknowledged; forgotten ones are empty shells
  std::size_t kept_bytes_ = 0;
  std::deque<OutFrame> again_;   // to be sent again, before anything new
  std::uint64_t received_ = 0;
  std::uint64_t unacknowledged_bytes_ = 0;
};

}  // namespace reef
