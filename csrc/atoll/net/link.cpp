#include "atoll/net/link.h"

#include <sys/epoll.h>

#include <algorithm>
#include <cerrno>

namespace reef {

namespace {

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
  }
  return "unknown";
}

LinkTally& LinkTally::operator+=(const LinkTally& other) {
  sent_bytes += other.sent_bytes;
  received_bytes += other.received_bytes;
  sending += other.sending;
  receiving += other.receiving;
  return *this;
}

Link::Link(const PeerId& peer, LinkTiming timing, LinkOwner& owner)
    : peer_(peer), timing_(timing), owner_(owner), last_received_(monotonic_now()) {}

Result<std::unique_ptr<Link>> Link::create(Poller& poller, const PeerId& peer,
                                           std::vector<Fd> sockets, LinkTiming timing,
                                           LinkOwner& owner) {
  std::unique_ptr<Link> link(new Link(peer, timing, owner));
  for (Fd& socket : sockets) {
    auto connection = Connection::create(poller, std::move(socket), *link);
    if (!connection) {
      return connection.error();
    }
    connection.value()->last_sent = link->last_received_;
    link->connections_.push_back(std::move(connection.value()));
  }
  return link;
}

std::uint32_t Link::connections() const { return static_cast<std::uint32_t>(connections_.size()); }

LinkTally Link::tally(Nanos now) const {
  LinkTally tally = tally_;
  tally.sending += sending_since_ == kNever ? 0 : now - sending_since_;
  tally.receiving += receiving_since_ == kNever ? 0 : now - receiving_since_;
  return tally;
}

// ---- sending ------------------------------------------------------------------------------------

void Link::send_control(OutFrame frame) {
  queue_.push_control(std::move(frame));
  queued();
}

void Link::send_data(OutFrame frame) {
  queue_.push_data(std::move(frame));
  queued();
}

void Link::donate(Donation donation) {
  queue_.push_donation(std::move(donation));
  queued();
}

void Link::queued() {
  if (sending_since_ == kNever) {
    sending_since_ = monotonic_now();
  }
  if (!flush_wanted_) {
    flush_wanted_ = true;
    owner_.wants_flush(*this);
  }
}

bool Link::take(OutFrame& frame) { return queue_.take(frame); }

// Ends the interval of sending when nothing is left.
void Link::note_sending(Nanos now) {
  const bool busy =
      !queue_.empty() || std::any_of(connections_.begin(), connections_.end(),
                                     [](const auto& one) { return one->writing(); });
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
    if (stage_ == Stage::up) {
      fail(LinkEnd::reset, "sending failed: " + status.error().message);
    }
  }
}

void Link::flush() {
  flush_wanted_ = false;
  if (stage_ != Stage::up) {
    return;
  }
  // Each connection in turn begins, so that connections which are never full share the work.
  const std::size_t count = connections_.size();
  for (std::size_t i = 0; i < count && stage_ == Stage::up && !queue_.empty(); ++i) {
    Connection& connection = *connections_[(turn_ + i) % count];
    if (!connection.blocked() && !connection.retired()) {
      write_to(connection);
    }
  }
  turn_ = (turn_ + 1) % count;
  note_sending(monotonic_now());
}

void Link::forget(OpId op) {
  queue_.purge(op);
  for (const auto& connection : connections_) {
    connection->forget(op);
  }
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
  receiving_ = &connection;
  Status status = connection.receive();
  if (tally_.received_bytes != before) {
    last_received_ = monotonic_now();
  }
  if (status.ok() || stage_ != Stage::up) {
    return;
  }
  const Error& error = status.error();
  if (byes_ > 0 && error.code != Code::protocol) {
    fail(LinkEnd::bye, "the peer said bye");
  } else if (error.code == Code::protocol) {
    fail(LinkEnd::protocol, error.message);
  } else if (error.sys_errno == ETIMEDOUT) {
    fail(LinkEnd::silent, "the peer acknowledged nothing: " + error.message);
  } else {
    fail(LinkEnd::reset, error.message);
  }
}

Destination Link::place(const FrameHeader& header) { return owner_.place(*this, header); }

Status Link::deliver(const FrameHeader& header, std::span<const std::byte> payload) {
  switch (header.type) {
    case FrameType::heartbeat: return Unit{};
    case FrameType::bye: heard_bye(); return Unit{};
    case FrameType::hello:
    case FrameType::hello_ack:
      return Error{Code::protocol, 0, "the peer sent a second handshake on one connection"};
    default: return owner_.deliver(*this, header, payload);
  }
}

// A BYE is the last frame of its connection; others may still carry what was sent before it.
void Link::heard_bye() {
  receiving_->retire();
  if (++byes_ == connections_.size()) {
    fail(LinkEnd::bye, "the peer said bye");
  }
}

void Link::received(std::size_t bytes) { tally_.received_bytes += bytes; }
void Link::sent(std::size_t bytes) { tally_.sent_bytes += bytes; }

void Link::inside_payload(bool inside) {
  if (inside && payloads_++ == 0) {
    receiving_since_ = monotonic_now();
  } else if (!inside && --payloads_ == 0) {
    tally_.receiving += monotonic_now() - receiving_since_;
    receiving_since_ = kNever;
  }
}

// ---- time and the end ---------------------------------------------------------------------------

Nanos Link::tick(Nanos now) {
  if (stage_ != Stage::up) {
    return kNever;
  }
  if (now - last_received_ >= timing_.silence) {
    fail(LinkEnd::silent, "nothing was heard for " +
                             std::to_string((now - last_received_) / kMillisecond) + " ms");
    return kNever;
  }
  Nanos next = last_received_ + timing_.silence;
  for (const auto& connection : connections_) {
    Nanos due = connection->last_sent + timing_.heartbeat;
    if (now >= due) {
      due = now + timing_.heartbeat;
      if (!connection->writing() && !connection->retired()) {
        connection->append(bare_frame(FrameType::heartbeat));
        write_to(*connection);
        if (stage_ != Stage::up) {
          return kNever;
        }
      }
    }
    next = std::min(next, due);
  }
  return next;
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
}

bool Link::depart() {
  bool writing = false;
  for (const auto& connection : connections_) {
    if (!connection->retired() && (!connection->flush().ok() || connection->drain())) {
      connection->retire();
    }
    writing = writing || (!connection->retired() && connection->writing());
  }
  bool gone = true;
  for (const auto& connection : connections_) {
    if (connection->retired()) {
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
