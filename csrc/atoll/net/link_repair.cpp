// A link's slots: how they become empty and are filled again.
#include <algorithm>
#include <utility>

#include "atoll/net/link.h"

namespace reef {
namespace {

// A path may let handshakes through and nothing after them (one that drops large packets, one that is
// up for moments). So many new connections count as a sign of life, until something comes on one.
constexpr std::uint32_t kMostUnproven = 2;

}  // namespace

// Takes the connection out. What was sent on it is kept until the other side has said what it has.
void Link::empty(Slot& slot, LinkEnd reason, const std::string& why) {
  past_retransmitted_ += slot.connection->figures().retransmitted;
  slot.connection->cut();
  slot.log.lost(slot.connection->reclaim());
  spent_.push_back(std::move(slot.connection));
  slot.lost_at = monotonic_now();
  slot.reason = reason;
  slot.why = why;
  if (connections() == 0) {
    all_lost_at_ = slot.lost_at;
  }
}

void Link::lose(std::uint32_t index, LinkEnd reason, const std::string& why) {
  Slot& slot = slots_[index];
  if (!slot.connection->replaceable()) {
    fail(reason, why);
    return;
  }
  empty(slot, reason, why);
  repair_ = owner_.lost(*this, index);
  if (repair_ == Repair::none) {
    fail(reason, why);
  }
}

// The peer knows best whether it can dial, so it gets the full time while something still lives.
Nanos Link::repair_deadline(const Slot& slot) const {
  const bool only_peer = repair_ == Repair::by_peer && connections() == 0;
  return only_peer ? std::min(all_lost_at_ + timing_.grace, slot.lost_at + timing_.silence)
                   : slot.lost_at + timing_.silence;
}

void Link::describe(std::uint32_t index, Hello& hello) {
  Slot& slot = slots_.at(index);
  hello.flags |= kHelloRepair;
  hello.connection_index = index;
  hello.connections = slots();
  hello.received = slot.log.received();
  hello.attempt = slot.attempts.next();
}

bool Link::make_way(const Hello& hello, Hello& ack) {
  const std::uint32_t index = hello.connection_index;
  if (stage_ != Stage::up || index >= slots_.size() ||
      !slots_[index].attempts.admits(hello.attempt)) {
    return false;
  }
  Slot& slot = slots_[index];
  if (slot.connection && (slot.connection->retired() || !slot.connection->replaceable())) {
    return false;  // it has said BYE, or never was on this way
  }
  ack.attempt = slot.attempts.admit(hello.attempt);
  if (slot.connection) {
    empty(slot, LinkEnd::reset, "the peer gave the connection up");
    if (connections() == 0) {
      repair_ = Repair::by_peer;
    }
  }
  ack.received = slot.log.received();
  return true;
}

void Link::resume(Poller& poller, std::unique_ptr<Connection> connection, const Hello& peer) {
  const std::uint32_t index = peer.connection_index;
  if (stage_ != Stage::up || !is_empty(index)) {
    return;
  }
  Slot& slot = slots_[index];
  slot.attempts.established(peer.attempt);
  if (Status status = slot.log.resume(peer.received); !status.ok()) {
    fail(LinkEnd::protocol, status.error().message);
    return;
  }
  connection->slot = index;
  if (Status status = connection->start(poller, *this); !status.ok()) {
    fail(LinkEnd::reset, status.error().message);
    return;
  }
  connection->last_sent = connection->last_heard = monotonic_now();
  if (unproven_ < kMostUnproven) {
    ++unproven_;
    last_received_ = connection->last_heard;
  }
  slot.connection = std::move(connection);
  all_lost_at_ = kNever;
  ++tally_.repairs;
  queued();
}

void Link::give_up(std::uint32_t index, const std::string& message) {
  if (stage_ != Stage::up || !is_empty(index)) {
    return;
  }
  // The peer may have said why, where it still could.
  for (std::size_t i = 0; i < slots_.size() && stage_ == Stage::up; ++i) {
    if (slots_[i].connection && !slots_[i].connection->retired()) {
      receive_from(*slots_[i].connection);
    }
  }
  if (stage_ == Stage::up) {
    fail(slots_[index].reason, slots_[index].why + "; " + message);
  }
}

}  // namespace reef
