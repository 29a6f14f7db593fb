// The sending half of a link: what waits, what its connections take of it, and what they have written.
#include <algorithm>
#include <utility>

#include "atoll/net/link.h"

namespace reef {

void Link::send_control(OutFrame frame) {
  queue_.push_control(std::move(frame));
  queued();
}

void Link::data_waiting() {
  queue_.data_waiting();
  queued();
}

void Link::donate(Donation donation) {
  queue_.push_donation(std::move(donation));
  queued();
}

void Link::send_filler(OutFrame frame) {
  queue_.push_filler(std::move(frame));
  queued();
}

void Link::queued() {
  if (sending_since_ == kNever) {
    sending_since_ = monotonic_now();
  }
  want_flush();
}

void Link::want_flush() {
  if (!flush_wanted_) {
    flush_wanted_ = true;
    owner_.wants_flush(*this);
  }
}

bool Link::take(Connection& connection, OutFrame& frame) {
  Slot& slot = slots_[connection.slot];
  if (slot.log.ack_due()) {
    frame = heartbeat(slot);
    return true;
  }
  const auto pull = [this](OutFrame& data) { return pull_in_time(data); };
  return slot.log.take_again(frame) || (!slot.log.full() && queue_.take(frame, pull));
}

void Link::wrote(Connection& connection, OutFrame frame) {
  slots_[connection.slot].log.wrote(std::move(frame));
}

// Also says how many frames were received on its slot.
OutFrame Link::heartbeat(Slot& slot) {
  FrameHeader header;
  header.sequence = slot.log.acknowledge();
  OutFrame frame;
  frame.header = encode_header(header);
  return frame;
}

// Ends the interval of sending when nothing is left.
void Link::note_sending(Nanos now) {
  const bool busy =
      held_until_ != kNever || !queue_.empty() || std::any_of(slots_.begin(), slots_.end(), [](const Slot& slot) {
        return slot.log.again() || (slot.connection && slot.connection->writing());
      });
  if (!busy && sending_since_ != kNever) {
    tally_.sending += now - sending_since_;
    sending_since_ = kNever;
  }
}

void Link::write_to(Connection& connection) {
  const std::uint64_t before = tally_.sent_bytes;
  Status status = connection.flush();
  if (tally_.sent_bytes != before) {
    connection.last_sent = monotonic_now();
  }
  if (!status.ok() && stage_ == Stage::up) {
    // The peer may have said why before it closed: read that first.
    receive_from(connection);
    if (stage_ != Stage::up || connection.retired()) {
      return;
    }
    const std::string why = "sending failed: " + status.error().message;
    if (status.error().code == Code::protocol) {
      fail(LinkEnd::protocol, why);
    } else {
      lose(connection.slot, LinkEnd::reset, why);
    }
  }
}

void Link::flush() {
  flush_wanted_ = false;
  if (stage_ != Stage::up) {
    return;
  }
  // Each connection in turn begins, so that connections which are never full share the work.
  const std::size_t count = slots_.size();
  for (std::size_t i = 0; i < count && stage_ == Stage::up; ++i) {
    Slot& slot = slots_[(turn_ + i) % count];
    const bool work = !queue_.empty() || slot.log.again() || slot.log.ack_due();
    if (work && slot.connection && !slot.connection->blocked() && !slot.connection->retired()) {
      write_to(*slot.connection);
    }
  }
  turn_ = (turn_ + 1) % count;
  note_sending(monotonic_now());
}

void Link::forget(OpId op) {
  queue_.purge(op);
  for (Slot& slot : slots_) {
    slot.log.forget(op);
    if (slot.connection) {
      slot.connection->forget(op);
    }
  }
}

}  // namespace reef
