// Links over mutual TLS: who comes in, who does not, and that the bits are the same.
#include <gtest/gtest.h>
#include <openssl/ssl.h>
#include <sys/socket.h>

#include <chrono>
#include <random>
#include <thread>
#include <vector>

#include "atoll/net/socket.h"
#include "certificates.h"
#include "island.h"
#include "raw_peer.h"

namespace reef::testing {
namespace {

Fd connected_socket(std::uint16_t port) {
  Fd socket(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const Address to = resolve("127.0.0.1", port, true).value().at(0);
  EXPECT_EQ(::connect(socket.get(), reinterpret_cast<const sockaddr*>(&to.storage), to.length), 0);
  return socket;
}

class Tls : public ::testing::Test {
 protected:
  EngineOptions with(unsigned number, const TlsOptions& tls) const {
    EngineOptions options = options_of(number);
    options.tls = tls;
    options.dial_timeout = 2 * kSecond;
    return options;
  }
  EngineOptions good(unsigned number) const { return with(number, tls_of(member, job)); }

  // A dialler with these options is refused by a good listener, which counts and tells of it.
  void is_refused(const EngineOptions& dialling, const char* heard_by_dialler,
                  const char* told_by_listener) const {
    Island listener(good(1));
    Island stranger(dialling);
    listener.engine->expect(stranger.id);
    stranger.engine->dial(listener.id, "127.0.0.1", listener.engine->port());
    const LinkDown down = stranger.await_down(listener.id);
    EXPECT_EQ(down.reason, LinkEnd::unreachable);
    EXPECT_NE(down.message.find(heard_by_dialler), std::string::npos) << down.message;
    const Refused told = listener.await<Refused>();
    EXPECT_NE(told.message.find(told_by_listener), std::string::npos) << told.message;
    const EngineStats stats = listener.engine->stats();
    EXPECT_GE(stats.rejected_tls, 1u);
    EXPECT_EQ(stats.rejected_bad_hello, 0u);
    EXPECT_FALSE(stats.links.at(0).up);
  }

  Identity job = authority("job");
  Identity other_job = authority("other job");
  Identity member{"member", {.issuer = &job}};
};

TEST_F(Tls, AllReducesAreTheSameBitsAsWithout) {
  constexpr std::size_t kCount = 3'000'017;
  std::vector<std::vector<float>> sums;
  for (const bool secured : {false, true}) {
    Island a(secured ? good(1) : options_of(1));
    Island b(secured ? good(2) : options_of(2));
    a.engine->expect(b.id);
    b.engine->dial(a.id, "127.0.0.1", a.engine->port());
    a.await_up(b.id);
    b.await_up(a.id);
    const View view{1, {a.id, b.id}};
    a.install(view);
    b.install(view);
    std::mt19937 random(3);
    std::vector<float> x(kCount);
    std::vector<float> y(kCount);
    for (std::size_t i = 0; i < kCount; ++i) {
      x[i] = static_cast<float>(random()) / 1e6f;
      y[i] = static_cast<float>(random()) / 1e5f;
    }
    std::vector<float> out_a(kCount);
    std::vector<float> out_b(kCount);
    for (int round = 0; round < 3; ++round) {
      const OpId first = a.all_reduce(x, out_a);
      const OpId second = b.all_reduce(y, out_b);
      EXPECT_EQ(a.code(first), Code::ok);
      EXPECT_EQ(b.code(second), Code::ok);
      EXPECT_TRUE(out_a == out_b);
    }
    sums.push_back(out_a);
    EXPECT_EQ(a.engine->stats().rejected_tls, 0u);
  }
  EXPECT_TRUE(sums[0] == sums[1]);
}

TEST_F(Tls, IntermediateAuthoritiesTravelWithTheCertificate) {
  const Identity site("site", {.issuer = &job, .authority = true});
  const Identity far("far", {.issuer = &site});
  TlsOptions tls = tls_of(far, job);
  tls.certificate += site.certificate();
  Island a(good(1));
  Island b(with(2, tls));
  a.engine->expect(b.id);
  b.engine->dial(a.id, "127.0.0.1", a.engine->port());
  a.await_up(b.id);
  b.await_up(a.id);
}

TEST_F(Tls, AForeignCertificateIsRefusedByBoth) {
  const Identity stranger("stranger", {.issuer = &other_job});
  is_refused(with(2, tls_of(stranger, other_job)), "certificate verify failed", "alert");
  // One that would believe the listener is not believed.
  is_refused(with(2, tls_of(stranger, job)), "alert", "certificate verify failed");
}

TEST_F(Tls, AnExpiredCertificateIsRefused) {
  const Identity late("late", {.issuer = &job, .from_s = -7'200, .until_s = -3'600});
  is_refused(with(2, tls_of(late, job)), "alert certificate expired", "has expired");
  const Identity early("early", {.issuer = &job, .from_s = 3'600, .until_s = 7'200});
  is_refused(with(2, tls_of(early, job)), "alert", "not yet valid");
}

TEST_F(Tls, ACertificateForOtherUsesIsRefused) {
  const Identity server("server", {.issuer = &job, .usage = "serverAuth"});
  is_refused(with(2, tls_of(server, job)), "alert", "unsuitable certificate purpose");
}

TEST_F(Tls, NoCertificateIsRefused) {
  Island listener(good(1));
  const std::unique_ptr<SSL_CTX, void (*)(SSL_CTX*)> context(SSL_CTX_new(TLS_client_method()),
                                                             SSL_CTX_free);
  const std::unique_ptr<SSL, void (*)(SSL*)> nobody(SSL_new(context.get()), SSL_free);
  Fd socket = connected_socket(listener.engine->port());
  SSL_set_fd(nobody.get(), socket.get());
  (void)SSL_connect(nobody.get());  // TLS 1.3: the client is through before it is judged
  char byte = 0;
  EXPECT_LE(SSL_read(nobody.get(), &byte, 1), 0);
  const Refused refused = listener.await<Refused>();
  EXPECT_NE(refused.message.find("peer did not return a certificate"), std::string::npos)
      << refused.message;
  EXPECT_EQ(listener.engine->stats().rejected_tls, 1u);
}

TEST_F(Tls, OlderVersionsAreRefused) {
  Island listener(good(1));
  const std::unique_ptr<SSL_CTX, void (*)(SSL_CTX*)> context(SSL_CTX_new(TLS_client_method()),
                                                             SSL_CTX_free);
  SSL_CTX_set_max_proto_version(context.get(), TLS1_2_VERSION);
  const std::unique_ptr<SSL, void (*)(SSL*)> old(SSL_new(context.get()), SSL_free);
  Fd socket = connected_socket(listener.engine->port());
  SSL_set_fd(old.get(), socket.get());
  EXPECT_NE(SSL_connect(old.get()), 1);
  (void)listener.await<Refused>();
  EXPECT_EQ(listener.engine->stats().rejected_tls, 1u);
}

TEST_F(Tls, APlainDiallerIsRefused) {
  EngineOptions plain = options_of(2);
  plain.dial_timeout = 2 * kSecond;
  is_refused(plain, "", "TLS");
}

// Refusals are told of once in ten seconds: who says nothing must not take that one place.
TEST_F(Tls, WhoHangsUpDoesNotHideWhyAnotherIsRefused) {
  Island listener(good(1));
  const unsigned char hello[] = {0x16, 0x03, 0x01, 0x02, 0x00, 0x01};  // a ClientHello's beginning
  const auto hung_up = [&](std::uint64_t count) {
    const Nanos deadline = monotonic_now() + kPatience;
    while (listener.engine->stats().rejected_tls < count && monotonic_now() < deadline) {
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    EXPECT_EQ(listener.engine->stats().rejected_tls, count);
  };
  RawPeer polite(listener.engine->port());
  polite.say(std::as_bytes(std::span(hello)));
  polite.hang_up();
  hung_up(1);
  RawPeer rude(listener.engine->port());
  rude.say(std::as_bytes(std::span(hello)));
  std::this_thread::sleep_for(std::chrono::milliseconds(50));  // the reset discards what is unread
  rude.reset();
  hung_up(2);
  Island stranger(with(2, tls_of(Identity("stranger", {.issuer = &other_job}), other_job)));
  stranger.engine->dial(listener.id, "127.0.0.1", listener.engine->port());
  const Refused told = listener.await<Refused>();
  EXPECT_NE(told.message.find("alert"), std::string::npos) << told.message;
}

TEST_F(Tls, APlainListenerSaysWhatIsWrong) {
  Island listener(1);
  Island dialler(good(2));
  listener.engine->expect(dialler.id);
  dialler.engine->dial(listener.id, "127.0.0.1", listener.engine->port());
  const LinkDown down = dialler.await_down(listener.id);
  EXPECT_EQ(down.reason, LinkEnd::unreachable);
  const Refused refused = listener.await<Refused>();
  EXPECT_NE(refused.message.find("speaks TLS"), std::string::npos) << refused.message;
  EXPECT_GE(listener.engine->stats().rejected_tls, 1u);
}

TEST_F(Tls, AStallInTheHandshakeEndsInTimeOnBothSides) {
  EngineOptions options = good(1);
  options.handshake_timeout = 300 * kMillisecond;
  Island listener(options);
  RawPeer mute(listener.engine->port());
  RawPeer slow(listener.engine->port());
  const unsigned char hello[] = {0x16, 0x03, 0x01, 0x02, 0x00, 0x01};  // a ClientHello's beginning
  slow.say(std::as_bytes(std::span(hello)));
  // Meanwhile others are served.
  Island friendly(good(2));
  listener.engine->expect(friendly.id);
  friendly.engine->dial(listener.id, "127.0.0.1", listener.engine->port());
  listener.await_up(friendly.id);
  EXPECT_TRUE(mute.is_closed());
  EXPECT_TRUE(slow.is_closed());
  EXPECT_EQ(listener.engine->stats().rejected_timeout, 2u);

  const Fd deaf = std::move(listen_on("127.0.0.1", 0).value());
  friendly.engine->dial(id_of(9), "127.0.0.1", local_port(deaf.get()));
  EXPECT_EQ(friendly.await_down(id_of(9)).reason, LinkEnd::unreachable);
}

TEST_F(Tls, OptionsThatCannotWorkAreRefusedInOneSentence) {
  const TlsOptions fine = tls_of(member, job);
  const auto refused = [&](const TlsOptions& tls, const char* what) {
    const auto engine = Engine::create(with(1, tls));
    ASSERT_FALSE(engine.ok()) << what;
    EXPECT_EQ(engine.error().code, Code::invalid);
    EXPECT_NE(engine.error().message.find(what), std::string::npos) << engine.error().message;
  };
  refused({fine.certificate, "", fine.authorities}, "needs all of");
  refused({"no PEM", fine.key, fine.authorities}, "certificate cannot be used");
  refused({fine.certificate, "no PEM", fine.authorities}, "key cannot be read");
  refused({fine.certificate, member.locked_key(), fine.authorities}, "not encrypted");
  refused({fine.certificate, job.key(), fine.authorities}, "does not belong");
  refused({fine.certificate, fine.key, "no PEM"}, "authorities' certificates cannot be read");
  const std::string half = fine.certificate.substr(0, fine.certificate.size() / 2);
  refused({fine.certificate + half, fine.key, fine.authorities}, "chain cannot be read");
  refused({fine.certificate, fine.key, fine.authorities + half}, "authorities");
}

}  // namespace
}  // namespace reef::testing
