#include "atoll/net/acceptor.h"

#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <optional>

#include "atoll/net/socket.h"
#include "atoll/net/socket_stream.h"

namespace reef {

namespace {

constexpr int kAcceptsPerTurn = 64;
// Out of file descriptors, a level-triggered listener would spin: it rests for so long.
constexpr Nanos kPause = 100 * kMillisecond;

// The first bytes of any TLS handshake.
bool begins_tls(std::span<const std::byte> bytes) {
  return bytes[0] == std::byte{0x16} && bytes[1] == std::byte{0x03};
}

bool for_relay(FrameType type) {
  return type == FrameType::relay_ask || type == FrameType::relay_answer;
}

}  // namespace

Rejections& Rejections::operator+=(const Rejections& other) {
  bad_hello += other.bad_hello;
  garbage += other.garbage;
  timeout += other.timeout;
  overload += other.overload;
  tls += other.tls;
  name += other.name;
  return *this;
}

// A connection before its handshake is through.
struct Acceptor::Pending final : Ready {
  Pending(Acceptor& its_acceptor, std::unique_ptr<Stream> its_stream, Nanos its_deadline)
      : acceptor(its_acceptor), stream(std::move(its_stream)), deadline(its_deadline) {}
  void on_ready(std::uint32_t) override { acceptor.read_from(*this); }

  Acceptor& acceptor;
  std::unique_ptr<Stream> stream;
  Registration registration;
  Nanos deadline;
  bool sniffed = false;
  bool plain = false;  // no TLS on it, whatever else there is
  bool secured = false;
  GreetingBytes bytes{};
  std::size_t filled = 0;
  std::string holder;          // the name in its certificate
  std::optional<Hello> hello;  // it is in order, and waits for its siblings or to be welcome
};

Acceptor::Acceptor(Poller& poller, Fd listener, const Options& options, AcceptorOwner& owner)
    : poller_(poller), listener_(std::move(listener)), options_(options), owner_(owner) {}

Acceptor::~Acceptor() = default;

Result<std::unique_ptr<Acceptor>> Acceptor::create(Poller& poller, Fd listener,
                                                   const Options& options, AcceptorOwner& owner) {
  std::unique_ptr<Acceptor> acceptor(new Acceptor(poller, std::move(listener), options, owner));
  auto registration = poller.add(acceptor->listener_.get(), EPOLLIN, *acceptor);
  if (!registration) {
    return registration.error();
  }
  acceptor->registration_ = std::move(registration.value());
  return acceptor;
}

void Acceptor::sweep() { dead_.clear(); }

void Acceptor::on_ready(std::uint32_t) {
  const Nanos now = monotonic_now();
  for (int i = 0; i < kAcceptsPerTurn; ++i) {
    Fd socket(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (socket.valid()) {
      admit(std::move(socket), now);
      continue;
    }
    if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
      ++rejections_.overload;
      paused_until_ = now + kPause;
      registration_.watch(0);
      return;
    }
    if (errno == EAGAIN) {
      return;
    }
    // Others (ECONNABORTED, EINTR, a network error of that one connection) concern one connection.
  }
}

void Acceptor::admit(Fd socket, Nanos now) {
  if (pending_.size() >= limits::kMaxPendingHandshakes) {
    ++rejections_.overload;
    return;
  }
  auto stream = make_stream(options_.tls, std::move(socket), Side::accepting);
  if (!stream) {
    ++rejections_.overload;
    return;
  }
  auto pending = std::make_unique<Pending>(*this, std::move(stream.value()),
                                           now + options_.handshake_timeout);
  auto registration = poller_.add(pending->stream->fd(), EPOLLIN, *pending);
  if (!registration) {
    ++rejections_.overload;
    return;
  }
  pending->registration = std::move(registration.value());
  pending_.push_back(std::move(pending));
}

// With TLS: what is for the relay is said before it, because the TLS on such a connection is not
// with this side. False: nothing is here yet.
bool Acceptor::sniff(Pending& pending) {
  std::array<std::byte, 4> first{};
  const ssize_t got = ::recv(pending.stream->fd(), first.data(), first.size(), MSG_PEEK);
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) {
    return false;
  }
  pending.sniffed = true;
  FrameHeader header;
  for (const FrameType type : {FrameType::relay_ask, FrameType::relay_answer}) {
    header.type = type;
    const HeaderBytes wanted = encode_header(header);
    if (got == static_cast<ssize_t>(first.size()) &&
        std::equal(first.begin(), first.end(), wanted.begin())) {
      pending.stream = std::make_unique<SocketStream>(pending.stream->release());
      pending.plain = pending.secured = true;
    }
  }
  return true;
}

// True when the stream can carry bytes. False: not yet, or it is refused.
bool Acceptor::secure(Pending& pending) {
  const IoResult done = pending.stream->secure();
  if (done.error == EAGAIN) {
    pending.registration.watch(pending.stream->holds_output() ? EPOLLIN | EPOLLOUT : EPOLLIN);
    return false;
  }
  if (done.error != 0) {
    // Who only hangs up has not said what is wrong, and would take the place of one who has: a
    // dialler closes all connections of a link when one of them fails.
    if (done.error == EPROTO) {
      owner_.refused("a connection from " + remote_text(pending.stream->fd()) +
                     " was refused: " + pending.stream->explain(done.error));
    }
    refuse(pending, rejections_.tls);
    return false;
  }
  pending.secured = true;
  pending.holder = pending.stream->holder();
  pending.registration.watch(EPOLLIN);
  return true;
}

void Acceptor::read_from(Pending& pending) {
  if (pending.hello) {
    bury(pending);  // only its end is watched: it gave up waiting, which is no offence
    return;
  }
  if (options_.tls != nullptr && !pending.sniffed && !sniff(pending)) {
    return;
  }
  if (!pending.secured && !secure(pending)) {
    return;
  }
  const bool bare = options_.tls == nullptr || pending.plain;
  while (pending.filled < kGreetingBytes) {
    const IoResult got =
        read_some(*pending.stream, std::span(pending.bytes).subspan(pending.filled));
    if (got.error == EAGAIN) {
      break;
    }
    if (got.bytes == 0) {
      refuse(pending, rejections_.garbage);
      return;
    }
    pending.filled += got.bytes;
  }
  if (pending.filled >= kHeaderBytes) {  // do not wait for the rest of what is wrong already
    if (options_.tls == nullptr && begins_tls(pending.bytes)) {
      owner_.refused("a connection from " + remote_text(pending.stream->fd()) +
                     " was refused: it speaks TLS, and this engine has no certificate");
      refuse(pending, rejections_.tls);
      return;
    }
    const auto header = parse_greeting_header(pending.bytes);
    const bool is_for_relay = header.ok() && bare && for_relay(header.value().type);
    if (!header || (header.value().type != FrameType::hello && !is_for_relay) ||
        (pending.plain && !is_for_relay)) {
      refuse(pending, rejections_.garbage);
      return;
    }
    if (is_for_relay && pending.filled == kGreetingBytes) {
      relay(pending, header.value().type);
      return;
    }
  }
  if (pending.filled == kGreetingBytes) {
    judge(pending);
  }
}

void Acceptor::relay(Pending& pending, FrameType what) {
  const auto hello = parse_greeting(what, pending.bytes);
  if (!hello || hello.value().sender == options_.self || hello.value().receiver == options_.self ||
      hello.value().sender == hello.value().receiver) {
    refuse(pending, rejections_.bad_hello);
    return;
  }
  pending.registration.reset();
  Fd socket = pending.stream->release();
  bury(pending);
  owner_.relay(what, hello.value(), std::move(socket));
}

void Acceptor::judge(Pending& pending) {
  const auto hello = parse_greeting(FrameType::hello, pending.bytes);
  if (!hello || !same_secret(hello.value().secret, options_.secret) ||
      hello.value().sender == options_.self || (hello.value().flags & kHelloGone) != 0) {
    refuse(pending, rejections_.bad_hello);
    return;
  }
  if ((hello.value().flags & kHelloRepair) != 0) {
    pending.hello = hello.value();
    pending.registration.watch(EPOLLRDHUP);
    repair(pending);
    return;
  }
  if (!greets(hello.value(), options_.self, options_.secret)) {
    refuse(pending, rejections_.bad_hello);
    return;
  }
  pending.hello = hello.value();
  if (!fits(pending)) {
    refuse(pending, rejections_.bad_hello);
    return;
  }
  // Only its end is of interest from now on; the dialer says nothing more before its ack.
  pending.registration.watch(EPOLLRDHUP);
  assemble(pending);
}

// Whether who has shown this certificate may speak for the peer; else it is refused.
bool Acceptor::believe(Pending& pending) {
  const PeerId& peer = pending.hello->sender;
  if (owner_.may_be(peer, pending.holder)) {
    return true;
  }
  owner_.refused("a connection from " + remote_text(pending.stream->fd()) +
                 " was refused: it speaks for peer " + peer.shorthand() +
                 ", which the certificate of " + quoted_holder(pending.holder) + " may not do");
  refuse(pending, rejections_.name);
  return false;
}

// Whether a HELLO agrees with those of the same peer that wait. Another nonce begins a new attempt,
// and ends the one before it; but nobody ends what came with another certificate.
bool Acceptor::fits(const Pending& latest) {
  const Hello& hello = *latest.hello;
  for (std::size_t i = pending_.size(); i-- > 0;) {
    Pending& other = *pending_[i];
    if (&other == &latest || !other.hello || other.hello->sender != hello.sender ||
        other.holder != latest.holder || (other.hello->flags & kHelloRepair) != 0) {
      continue;
    }
    if (other.hello->nonce != hello.nonce) {
      refuse(other, rejections_.bad_hello);
    } else if (other.hello->connections != hello.connections ||
               other.hello->flags != hello.flags ||
               other.hello->connection_index == hello.connection_index) {
      return false;
    }
  }
  return true;
}

// Accepts the link of which `latest` is a part, if it is complete and welcome.
void Acceptor::assemble(Pending& latest) {
  if (!believe(latest)) {
    return;
  }
  const Hello hello = *latest.hello;
  std::vector<Pending*> parts(hello.connections, nullptr);
  std::size_t present = 0;
  for (const auto& one : pending_) {
    if (one->hello && one->hello->sender == hello.sender && one->hello->nonce == hello.nonce &&
        one->holder == latest.holder && (one->hello->flags & kHelloRepair) == 0) {
      parts[one->hello->connection_index] = one.get();
      ++present;
    }
  }
  const auto welcome = owner_.welcome(hello.sender, hello.nonce);
  if (welcome == AcceptorOwner::Welcome::known) {
    for (Pending* part : parts) {
      if (part != nullptr) {
        refuse(*part, rejections_.bad_hello);
      }
    }
    return;
  }
  if (present < hello.connections || welcome == AcceptorOwner::Welcome::later) {
    return;
  }
  Streams streams;
  Hello ack = hello;
  ack.flags |= options_.hello_flags;  // who wants checksums gets them
  for (Pending* part : parts) {
    ack.connection_index = part->hello->connection_index;
    answer(*part, ack);
    part->registration.reset();
    streams.push_back(std::move(part->stream));
    bury(*part);
  }
  owner_.accepted(hello.sender, ack, std::move(streams));
}

void Acceptor::answer(Pending& pending, Hello ack) {
  ack.sender = options_.self;
  ack.receiver = pending.hello->sender;
  const GreetingBytes bytes = encode_greeting(FrameType::hello_ack, ack);
  // A fresh socket takes so few bytes at once, or it is broken: then its link loses it at once.
  if (write_some(*pending.stream, bytes).bytes != bytes.size()) {
    ::shutdown(pending.stream->fd(), SHUT_RDWR);
  }
}

void Acceptor::repair(Pending& pending) {
  if (!believe(pending)) {
    return;
  }
  const Hello hello = *pending.hello;
  Hello ack = hello;
  // For another receiver: another process had this port before.
  const bool mine = hello.receiver == options_.self;
  const auto verdict = mine ? owner_.repair(hello, ack) : AcceptorOwner::Answer::gone;
  switch (verdict) {
    case AcceptorOwner::Answer::later: return;
    case AcceptorOwner::Answer::stale: bury(pending); return;
    case AcceptorOwner::Answer::gone:
      ack.flags |= kHelloGone;
      answer(pending, ack);
      bury(pending);
      return;
    case AcceptorOwner::Answer::yes: break;
  }
  answer(pending, ack);
  pending.registration.reset();
  std::unique_ptr<Stream> stream = std::move(pending.stream);
  bury(pending);
  owner_.repaired(hello, std::move(stream));
}

void Acceptor::reconsider() {
  // Each round may remove entries: start again until a round removes nothing.
  for (std::size_t i = 0; i < pending_.size();) {
    const std::size_t before = pending_.size();
    if (pending_[i]->hello && (pending_[i]->hello->flags & kHelloRepair) != 0) {
      repair(*pending_[i]);
    } else if (pending_[i]->hello) {
      assemble(*pending_[i]);
    }
    i = pending_.size() == before ? i + 1 : 0;
  }
}

Nanos Acceptor::tick(Nanos now) {
  Nanos next = kNever;
  if (paused_until_ != kNever && now >= paused_until_) {
    paused_until_ = kNever;
    registration_.watch(EPOLLIN);
  }
  next = std::min(next, paused_until_);
  for (std::size_t i = pending_.size(); i-- > 0;) {
    Pending& pending = *pending_[i];
    if (now >= pending.deadline) {
      refuse(pending, pending.hello ? rejections_.bad_hello : rejections_.timeout);
    } else {
      next = std::min(next, pending.deadline);
    }
  }
  return next;
}

void Acceptor::refuse(Pending& pending, std::uint64_t& counter) {
  ++counter;
  bury(pending);
}

void Acceptor::bury(const Pending& pending) {
  const auto at = std::find_if(pending_.begin(), pending_.end(),
                               [&](const auto& one) { return one.get() == &pending; });
  check(at != pending_.end(), "Acceptor::bury: it is not pending");
  (*at)->registration.reset();
  (*at)->stream.reset();
  dead_.push_back(std::move(*at));
  pending_.erase(at);
}

}  // namespace reef
