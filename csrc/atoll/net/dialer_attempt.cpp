// One attempt of the dialer: connect, TLS, HELLO, HELLO_ACK, on all its lines.
#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "atoll/net/dialer_call.h"
#include "atoll/net/path.h"
#include "atoll/topology/connections.h"

namespace reef {

// False when it has failed at once.
bool Dialer::attempt(Call& call, const Route& route, Nanos now) {
  ++call.tries;
  auto& made = *call.attempts.emplace_back(std::make_unique<Attempt>(
      call, route, std::min(call.deadline, now + options_.handshake_timeout)));
  made.nonce = call.repair() ? call.nonce : draw_nonce();
  made.connections = call.connections;
  const std::uint32_t first = call.repair() ? call.slot() : 0;
  for (std::uint32_t i = first; i < first + std::max(1u, call.connections); ++i) {
    if (!open_line(made, i)) {
      // Without the rest of fail(): the caller goes on with the next route.
      hang_up(made);
      call.attempts.pop_back();
      return false;
    }
  }
  return true;
}

bool Dialer::open_line(Attempt& attempt, std::uint32_t index) {
  auto socket = start_connect(attempt.route.address);
  // An answer's TLS, if any, is the acceptor's, with whoever called.
  const TlsContext* tls = attempt.call.answers() ? nullptr : options_.tls;
  auto stream = socket ? make_stream(tls, std::move(socket.value()), Side::dialling)
                       : Result<std::unique_ptr<Stream>>(socket.error());
  Call& call = attempt.call;
  if (!stream) {
    call.last_error = stream.error().message;
    call.all_refused = call.all_refused && stream.error().sys_errno == ECONNREFUSED;
    return false;
  }
  auto line = std::make_unique<Line>(*this, attempt, index, std::move(stream.value()));
  auto registration = poller_.add(line->stream->fd(), EPOLLOUT, *line);
  if (!registration) {
    call.last_error = registration.error().message;
    call.all_refused = false;
    return false;
  }
  line->registration = std::move(registration.value());
  attempt.lines.push_back(std::move(line));
  return true;
}

// The first line has met the other side: opens the others that this path should have.
void Dialer::widen(Attempt& attempt, const Line& first) {
  const std::uint32_t wanted =
      std::min(connections_from_round_trip(round_trip_s(first.stream->fd())), attempt.call.most);
  attempt.connections = 1;
  while (attempt.connections < wanted && open_line(attempt, attempt.connections)) {
    ++attempt.connections;
  }
}

// Something happened on one line: may end the attempt, or the whole call.
void Dialer::progress(Line& line) {
  Attempt& attempt = line.attempt;
  std::string why;
  int error = 0;
  bool good = true;
  switch (line.stage) {
    case Line::Stage::connecting:
    case Line::Stage::securing: good = secure(line, why, error); break;
    case Line::Stage::greeted: good = hear(line, why); break;
    case Line::Stage::through:  // only its end is watched
      good = false;
      why = "the peer closed the connection during the handshake";
      break;
  }
  if (!good) {
    fail(attempt, why, error, monotonic_now());
    return;
  }
  if (attempt.call.answers()) {
    hand_over(line);
    return;
  }
  if (line.stage == Line::Stage::through && (line.ack.flags & kHelloGone) != 0) {
    Call& call = attempt.call;
    call.over = true;
    for (auto& one : call.attempts) {
      hang_up(*one);
    }
    call.attempts.clear();
    owner_.irreparable(call.key.first, call.slot(), "the peer has ended this link");
    return;
  }
  if (std::all_of(attempt.lines.begin(), attempt.lines.end(),
                  [](const auto& one) { return one->stage == Line::Stage::through; })) {
    succeed(attempt);
  }
}

bool Dialer::secure(Line& line, std::string& why, int& error) {
  if (line.stage == Line::Stage::connecting) {
    error = socket_error(line.stream->fd());
    if (error != 0) {
      why = strerror(error);
      return false;
    }
    line.stage = Line::Stage::securing;
    if (const auto& detour = line.attempt.route.detour) {
      const auto& words = detour->preamble;
      const ssize_t sent =
          ::send(line.stream->fd(), words.data(), words.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
      if (sent != static_cast<ssize_t>(words.size())) {  // a fresh socket takes so few at once
        why = sent < 0 ? strerror(errno) : "a fresh socket took only part of a greeting";
        return false;
      }
      if (line.attempt.call.answers()) {
        return true;
      }
    }
    if (line.attempt.connections == 0) {
      widen(line.attempt, line);
    }
  }
  const IoResult done = line.stream->secure();
  if (done.error == EAGAIN) {
    line.registration.watch(line.stream->holds_output() ? EPOLLIN | EPOLLOUT : EPOLLIN);
    return true;
  }
  if (done.error != 0) {
    why = line.stream->explain(done.error);
    return false;
  }
  const PeerId& peer = line.attempt.call.key.first;
  const std::string holder = line.stream->holder();
  if (!owner_.may_be(peer, holder)) {  // before the secret is said
    why = "who answers at " + line.attempt.route.text + " shows the certificate of " +
          quoted_holder(holder) + ", which may not speak for peer " + peer.shorthand();
    owner_.impostor(why);
    return false;
  }
  return greet(line, why);
}

void Dialer::hand_over(Line& line) {
  line.registration.reset();
  Fd socket = line.stream->release();
  erase(calls_.find(line.attempt.call.key));
  owner_.answered(std::move(socket));
}

bool Dialer::greet(Line& line, std::string& why) {
  const Call& call = line.attempt.call;
  Hello hello;
  hello.connection_index = line.index;
  hello.connections = line.attempt.connections;  // of a repair: describe() knows
  hello.flags = call.repair() ? 0 : options_.hello_flags;
  hello.sender = options_.self;
  hello.receiver = call.key.first;
  hello.nonce = line.attempt.nonce;
  hello.secret = options_.secret;
  if (call.repair()) {
    // One HELLO at a time: what it says has been received must still hold when it is heard, and does
    // not after the answer to another one.
    supersede(line.attempt);
    if (!owner_.describe(call.key.first, call.slot(), hello)) {
      why = "the link is over";
      return false;
    }
  }
  line.attempt.number = hello.attempt;
  line.ack.connections = hello.connections;  // as it must come back
  const GreetingBytes bytes = encode_greeting(FrameType::hello, hello);
  const IoResult sent = write_some(*line.stream, bytes);
  if (sent.bytes != bytes.size()) {  // a fresh socket takes so few bytes at once
    why = sent.error != 0 ? line.stream->explain(sent.error)
                          : "a fresh socket took only part of a greeting";
    return false;
  }
  line.stage = Line::Stage::greeted;
  line.registration.watch(line.stream->holds_output() ? EPOLLIN | EPOLLOUT : EPOLLIN);
  return true;
}

bool Dialer::hear(Line& line, std::string& why) {
  if (line.stream->holds_output()) {
    (void)line.stream->flush();  // its failure is seen by reading, too
    line.registration.watch(line.stream->holds_output() ? EPOLLIN | EPOLLOUT : EPOLLIN);
  }
  const IoResult got = read_some(*line.stream, std::span(line.bytes).subspan(line.filled));
  if (got.error == EAGAIN) {
    return true;
  }
  if (got.bytes == 0) {
    why = got.error != 0 ? line.stream->explain(got.error) : "the peer refused the handshake";
    return false;
  }
  line.filled += got.bytes;
  if (line.filled < kGreetingBytes) {
    return true;
  }
  const auto ack = parse_greeting(FrameType::hello_ack, line.bytes);
  if (!ack) {
    why = "what answers there is no peer: " + ack.error().message;
    return false;
  }
  const Call& call = line.attempt.call;
  const Hello& hello = ack.value();
  const bool repair = (hello.flags & kHelloRepair) != 0;
  // Who says that the link is gone there need not be the peer: another process may have its port.
  const bool gone = repair && (hello.flags & kHelloGone) != 0;
  if ((hello.sender != call.key.first && !gone) || hello.receiver != options_.self ||
      hello.nonce != line.attempt.nonce || hello.connection_index != line.index ||
      hello.connections != line.ack.connections || repair != call.repair() ||
      hello.attempt < line.attempt.number || !same_secret(hello.secret, options_.secret)) {
    why = "another peer, or a peer of another job, answers there";
    return false;
  }
  std::optional<std::uint32_t>& agreed = line.attempt.agreed;
  if (!repair && ((hello.flags & options_.hello_flags) != options_.hello_flags ||
                  agreed.value_or(hello.flags) != hello.flags)) {
    why = "the peer does not agree to what was asked for";
    return false;
  }
  agreed = hello.flags;
  line.ack = hello;
  line.stage = Line::Stage::through;
  line.registration.watch(EPOLLRDHUP);  // its frames are for the link to read
  return true;
}

void Dialer::succeed(Attempt& attempt) {
  Streams streams;
  for (const auto& line : attempt.lines) {
    line->registration.reset();
    streams.push_back(std::move(line->stream));
  }
  const Key key = attempt.call.key;
  const bool repair = attempt.call.repair();
  const Hello ack = attempt.lines.front()->ack;
  const Route route = attempt.route;
  erase(calls_.find(key));
  if (repair) {
    owner_.redialled(key.first, ack, std::move(streams.front()));
  } else {
    owner_.dialled(key.first, ack, std::move(streams), route);
  }
}

// Ends the other attempts of its call that have said HELLO.
void Dialer::supersede(const Attempt& latest) {
  Call& call = latest.call;
  for (std::size_t i = call.attempts.size(); i-- > 0;) {
    if (call.attempts[i].get() != &latest && call.attempts[i]->in_contact()) {
      hang_up(*call.attempts[i]);
      call.attempts.erase(call.attempts.begin() + static_cast<std::ptrdiff_t>(i));
    }
  }
}

void Dialer::hang_up(Attempt& attempt) {
  const bool contact = !attempt.lines.empty() && attempt.in_contact();
  for (auto& line : attempt.lines) {
    line->registration.reset();
    line->stream.reset();
    dead_.push_back(std::move(line));
  }
  attempt.lines.clear();
  if (contact) {
    owner_.contact_lost();
  }
}

void Dialer::fail(Attempt& attempt, const std::string& why, int error, Nanos now) {
  Call& call = attempt.call;
  call.last_error = why;
  call.all_refused = call.all_refused && error == ECONNREFUSED;
  call.next_start = now;
  hang_up(attempt);
  std::erase_if(call.attempts, [&](const auto& one) { return one.get() == &attempt; });
  advance(call, now);
}

}  // namespace reef
