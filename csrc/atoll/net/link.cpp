#include "atoll/net/link.h"

#include <sys/epoll.h>

#include <algorithm>
#include <cerrno>

namespace reef {

namespace {

// A frame that arrives damaged so often in a row is no accident of the network.
constexpr std::uint32_t kMostDamaged = 16;

OutFrame bare_frame(FrameType type) {
  FrameHeader header;
  header.type = type;
  OutFrame frame;
  frame.header = encode_header(header);
  return frame;
}

}  // namespace

const char* link_end_name(LinkEnd reason) {
  switch (reason) {
    case LinkEnd::unreachable: return "unreachable";
    case LinkEnd::reset: return "reset";
    case LinkEnd::silent: return "silent";
    case LinkEnd::protocol: return "protocol";
    case LinkEnd::bye: return "bye";
    case LinkEnd::dropped: return "dropped";
    case LinkEnd::died: return "died";
  }
  return "unknown";
}

LinkTally& LinkTally::operator+=(const LinkTally& other) {
  sent_bytes += other.sent_bytes;
  received_bytes += other.received_bytes;
  sending += other.sending;
  receiving += other.receiving;
  repairs += other.repairs;
  damaged += other.damaged;
  return *this;
}

Link::Link(const PeerId& peer, LinkTiming timing, LinkOwner& owner)
    : peer_(peer), timing_(timing), owner_(owner), last_received_(monotonic_now()) {}

Result<std::unique_ptr<Link>> Link::create(Poller& poller, const PeerId& peer,
                                           std::vector<std::unique_ptr<Connection>> connections,
                                           LinkTiming timing, LinkOwner& owner) {
  std::unique_ptr<Link> link(new Link(peer, timing, owner));
  for (auto& connection : connections) {
    connection->slot = link->slots();
    if (Status status = connection->start(poller, *link); !status.ok()) {
      return status.error();
    }
    connection->last_sent = connection->last_heard = link->last_received_;
    link->slots_.emplace_back().connection = std::move(connection);
  }
  return link;
}

std::uint32_t Link::connections() const {
  return static_cast<std::uint32_t>(
      std::count_if(slots_.begin(), slots_.end(), [](const Slot& slot) { return slot.connection != nullptr; }));
}

bool Link::is_empty(std::uint32_t slot) const {
  return slot < slots_.size() && slots_[slot].connection == nullptr;
}

LinkTally Link::tally(Nanos now) const {
  LinkTally tally = tally_;
  tally.sending += sending_since_ == kNever ? 0 : now - sending_since_;
  tally.receiving += receiving_since_ == kNever ? 0 : now - receiving_since_;
  return tally;
}

TcpFigures Link::figures() const {
  TcpFigures all{.retransmitted = past_retransmitted_};
  for (const Slot& slot : slots_) {
    if (!slot.connection) {
      continue;
    }
    const TcpFigures one = slot.connection->figures();
    all.retransmitted += one.retransmitted;
    if (one.round_trip > 0 && (all.round_trip == 0 || one.round_trip < all.round_trip)) {
      all.round_trip = one.round_trip;
    }
  }
  return all;
}

// ---- receiving ----------------------------------------------------------------------------------

void Link::ready(Connection& connection, std::uint32_t events) {
  if (stage_ == Stage::leaving) {
    depart();
  }
  if (stage_ != Stage::up) {
    return;
  }
  if ((events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0) {
    receive_from(connection);
  }
  if ((events & EPOLLOUT) != 0 && stage_ == Stage::up && !connection.retired()) {
    write_to(connection);
    note_sending(monotonic_now());
  }
}

void Link::receive_from(Connection& connection) {
  const std::uint64_t before = tally_.received_bytes;
  Status status = connection.receive();
  if (tally_.received_bytes != before) {
    last_received_ = connection.last_heard = monotonic_now();
    unproven_ = 0;
  }
  if (status.ok() || stage_ != Stage::up || connection.retired()) {
    return;
  }
  const Error& error = status.error();
  const bool damaged = error.code == Code::io && error.sys_errno == EBADMSG;
  tally_.damaged += damaged ? 1 : 0;
  if (damaged && ++slots_[connection.slot].damaged >= kMostDamaged) {
    fail(LinkEnd::protocol, "frame after frame arrived damaged");
  } else if (error.code == Code::protocol) {
    fail(LinkEnd::protocol, error.message);
  } else if (byes_ > 0) {
    fail(LinkEnd::bye, "the peer said bye");
  } else if (error.sys_errno == ETIMEDOUT) {
    lose(connection.slot, LinkEnd::silent, "the peer acknowledged nothing: " + error.message);
  } else {
    lose(connection.slot, LinkEnd::reset, error.message);
  }
}

Destination Link::place(const FrameHeader& header) { return owner_.place(*this, header); }

Status Link::deliver(Connection& connection, const FrameHeader& header,
                     std::span<const std::byte> payload, bool thrown_away) {
  Slot& slot = slots_[connection.slot];
  if (header.type == FrameType::heartbeat) {
    return connection.replaceable() ? heard_count(slot, header.sequence) : Status(Unit{});
  }
  if (connection.replaceable()) {
    slot.damaged = 0;
    slot.log.arrived(kHeaderBytes + header.length);
    if (slot.log.ack_due()) {
      want_flush();
    }
  }
  if (thrown_away) {
    return Unit{};
  }
  switch (header.type) {
    case FrameType::bye: heard_bye(connection); return Unit{};
    case FrameType::hello:
    case FrameType::hello_ack:
    case FrameType::relay_ask:
    case FrameType::relay_answer:
      return Error{Code::protocol, 0, "the peer sent a second handshake on one connection"};
    default: return owner_.deliver(*this, header, payload);
  }
}

Status Link::heard_count(Slot& slot, std::uint64_t received) {
  const bool was_full = slot.log.full();
  Status status = slot.log.acknowledged(received);
  if (was_full && !slot.log.full()) {
    want_flush();
  }
  return status;
}

// A BYE is the last frame of its connection; others may still carry what was sent before it. A slot
// that is empty has nothing to carry any more: who leaves does not mend.
void Link::heard_bye(Connection& connection) {
  connection.retire();
  ++byes_;
  if (std::all_of(slots_.begin(), slots_.end(), [](const Slot& slot) {
        return !slot.connection || slot.connection->retired();
      })) {
    fail(LinkEnd::bye, "the peer said bye");
  }
}

void Link::received(std::size_t bytes) { tally_.received_bytes += bytes; }
void Link::sent(std::size_t bytes) { tally_.sent_bytes += bytes; }

void Link::inside_payload(bool inside) {
  if (inside && payloads_++ == 0) {
    receiving_since_ = monotonic_now();
  } else if (!inside && --payloads_ == 0 && receiving_since_ != kNever) {
    tally_.receiving += monotonic_now() - receiving_since_;
    receiving_since_ = kNever;
  }
}

// ---- time and the end ---------------------------------------------------------------------------

Nanos Link::tick(Nanos now) {
  spent_.clear();
  if (stage_ != Stage::up) {
    return kNever;
  }
  if (connections() > 0 && now - last_received_ >= timing_.silence) {
    fail(LinkEnd::silent, "nothing was heard for " +
                             std::to_string((now - last_received_) / kMillisecond) + " ms");
    return kNever;
  }
  Nanos next = kNever;
  for (Slot& slot : slots_) {
    if (!slot.connection) {
      const Nanos due = repair_deadline(slot);
      if (now >= due) {
        fail(slot.reason, slot.why + "; no other connection took its place within " +
                              std::to_string((now - slot.lost_at) / kMillisecond) + " ms");
      }
      next = std::min(next, due);
    } else if (!slot.connection->retired()) {
      beat(slot, now, next);
    }
    if (stage_ != Stage::up) {
      return kNever;
    }
  }
  return spent_.empty() ? next : now;
}

// Heartbeats, and the silence of one connection among others. False when the connection is lost.
bool Link::beat(Slot& slot, Nanos now, Nanos& next) {
  Connection& connection = *slot.connection;
  if (connection.unread()) {
    receive_from(connection);
    if (stage_ != Stage::up || connection.retired()) {
      return false;
    }
  }
  if (now - connection.last_heard >= timing_.silence) {
    lose(connection.slot, LinkEnd::silent, "one connection was silent");
    return false;
  }
  Nanos due = connection.last_sent + timing_.heartbeat;
  if (now >= due) {
    due = now + timing_.heartbeat;
    if (!connection.writing()) {
      connection.append(heartbeat(slot));
      write_to(connection);
      if (stage_ != Stage::up || connection.retired()) {
        return false;
      }
    }
  }
  next = std::min({next, due, connection.last_heard + timing_.silence});
  return true;
}

void Link::fail(LinkEnd reason, const std::string& message) {
  if (stage_ != Stage::up) {
    return;
  }
  stage_ = Stage::ended;
  const Nanos now = monotonic_now();
  const LinkTally total = tally(now);
  tally_ = total;
  sending_since_ = kNever;
  receiving_since_ = kNever;
  owner_.ended(*this, reason, message);
}

void Link::leave() {
  check(stage_ == Stage::up, "Link::leave: it has ended");
  stage_ = Stage::leaving;
  receiving_since_ = kNever;
  queue_.drop_donations();
  queue_.drop_filler();
}

bool Link::depart() {
  spent_.clear();
  bool writing = false;
  for (const Slot& slot : slots_) {
    Connection* connection = slot.connection.get();
    if (connection == nullptr || connection->retired()) {
      continue;
    }
    if (!connection->flush().ok() || connection->drain()) {
      connection->retire();
    } else {
      writing = writing || connection->writing();
    }
  }
  bool gone = true;
  for (const Slot& slot : slots_) {
    Connection* connection = slot.connection.get();
    if (connection == nullptr || connection->retired()) {
      continue;
    }
    gone = false;
    // Only now, because what one connection carries may arrive after the BYE of another.
    if (!writing && !farewell_) {
      connection->append(bare_frame(FrameType::bye));
      if (!connection->flush().ok()) {
        connection->retire();
      }
    }
    if (farewell_ && !connection->retired() && !connection->writing()) {
      connection->finish_writing();
    }
  }
  farewell_ = farewell_ || !writing;
  return gone;
}

}  // namespace reef
